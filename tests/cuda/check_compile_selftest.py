#!/usr/bin/env python3
"""check_compile.py on logs of ptxas as they are."""

import unittest

import check_compile

LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'scale' for 'sm_80'
ptxas info    : Function properties for scale
    {stack} bytes stack frame, {spill} bytes spill stores, 0 bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, {shared} bytes smem, 356 bytes cmem[0]
ptxas info    : Compile time = 1.362 ms
ptxas info    : Compiling entry function 'scale' for 'sm_90a'
ptxas info    : Function properties for scale
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 30 registers, used 1 barriers
"""


def log(stack=0, spill=0, shared=512):
    return LOG.format(stack=stack, spill=spill, shared=shared)


class CheckCompile(unittest.TestCase):
    def test_a_good_log(self):
        kernels, violations = check_compile.check_log(log(), ["sm_80", "sm_90a"])
        self.assertEqual(violations, [])
        self.assertEqual([(k.name, k.target, k.registers, k.shared) for k in kernels],
                         [("scale", "sm_80", 24, 512), ("scale", "sm_90a", 30, 0)])

    def test_spills_and_local_memory(self):
        for bad in (log(spill=8), log(stack=16)):
            _, violations = check_compile.check_log(bad, ["sm_80", "sm_90a"])
            self.assertEqual(len(violations), 1)
            self.assertIn("scale for sm_80", violations[0])

    def test_an_exception(self):
        _, violations = check_compile.check_log(log(spill=8), [], {"scale": (8, "once a launch")})
        self.assertEqual(violations, [])
        _, violations = check_compile.check_log(log(spill=12), [], {"scale": (8, "once a launch")})
        self.assertEqual(len(violations), 1)

    def test_shared_memory(self):
        _, violations = check_compile.check_log(log(shared=49153), [])
        self.assertIn("49153 bytes of static shared memory", violations[0])

    def test_shared_memory_tells_whether_there_is_a_body(self):
        text = log().replace("'scale'", "'linear_e4m3_as_bf16_r8'")  # shared memory on sm_80 alone
        self.assertEqual(check_compile.check_log(text, [])[1], [])
        for bad in (log(shared=0).replace("'scale'", "'linear_e4m3_as_bf16_r8'"), text.replace("sm_80", "sm_89")):
            _, violations = check_compile.check_log(bad, [])
            self.assertEqual(len(violations), 1)
            self.assertIn("cuda_code.c", violations[0])

    def test_a_target_is_missing(self):
        _, violations = check_compile.check_log(log(), ["sm_80", "sm_86"])
        self.assertEqual(violations, ["scale was not compiled for sm_86"])

    def test_warnings(self):
        text = log() + "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized\n"
        _, violations = check_compile.check_log(text, [])
        self.assertEqual(len(violations), 1)

    def test_nothing(self):
        self.assertEqual(check_compile.check_log("", ["sm_80"])[1], ["no kernel in it"])


if __name__ == "__main__":
    unittest.main()
