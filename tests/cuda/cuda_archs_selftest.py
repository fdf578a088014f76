#!/usr/bin/env python3
"""The cards that CMake compiles kernels for: cmake/cuda.cmake by itself, with programs in the place of nvcc and nvidia-smi."""

import json
import pathlib
import re
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EVERY = "sm_80 sm_86 sm_89 sm_90a sm_120 compute_90"
KNOWN = "75 80 86 87 89 90 100 120"  # by this nvcc


class CudaArchs(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name)
        self.program("nvcc", f"for n in {KNOWN}; do echo sm_$n; done")
        (self.path / "libcudart_static.a").touch()

    def program(self, name, body):
        (self.path / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.path / name).chmod(0o755)

    def configure(self, archs=None, cards=None, smi=None):
        """What CMake says. archs: of BANTAM_CUDA_ARCHS, None: its default. cards: what nvidia-smi lists, None: it is not there."""
        (self.path / "nvidia-smi").unlink(missing_ok=True)
        if cards or smi:
            self.program("nvidia-smi", smi or '[ "$*" = "--query-gpu=compute_cap --format=csv,noheader" ] || exit 2\n'
                         + "\n".join(f"echo {card}" for card in cards))
        done = subprocess.run(
            ["cmake", *([] if archs is None else [f"-DBANTAM_CUDA_ARCHS={archs}"]), f"-DBANTAM_NVCC_PROGRAM={self.path}/nvcc",
             f"-DBANTAM_CUDART_HEADERS={self.path}", f"-DBANTAM_CUDART_STATIC={self.path}/libcudart_static.a",
             f"-DCMAKE_SOURCE_DIR={ROOT}", "-P", ROOT / "cmake/cuda.cmake"],
            env={"PATH": f"{self.path}:/usr/local/bin:/usr/bin:/bin"}, capture_output=True, text=True, check=False, timeout=60)
        self.status = done.returncode
        return done.stdout + " ".join(done.stderr.split())

    def targets(self, *arguments, **more):
        said = self.configure(*arguments, **more)
        self.assertEqual(self.status, 0, said)
        return re.search(r"nvcc for ([^;]*);", said).group(1)

    def test_the_preset_takes_those_found(self):
        presets = json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]
        archs = {preset["name"]: preset.get("cacheVariables", {}).get("BANTAM_CUDA_ARCHS") for preset in presets}
        self.assertEqual({name for name in archs if archs[name]}, {"engine"})
        self.assertEqual(archs["engine"], "found")

    def test_cards_that_are_listed(self):
        for archs in ("found", "native"):
            self.assertEqual(self.targets(archs, ["9.0"]), "sm_90a")
            self.assertEqual(self.targets(archs, ["8.9", "8.9", "12.0"]), "sm_89 sm_120")
            # B200: the PTX for later ones. 12.1 and 9.1 are not known to this nvcc. 7.5 has none of the instructions.
            self.assertEqual(self.targets(archs, ["10.0", "9.1"]), "compute_90")
            self.assertEqual(self.targets(archs, ["12.1"]), "sm_120")
            self.assertEqual(self.targets(archs, ["7.5", "8.6"]), "sm_86")

    def test_no_card(self):
        for smi in (None, "echo NVIDIA-SMI has failed; exit 9", "echo No devices were found", "echo 9.0; exit 1", "echo 7.5"):
            self.assertEqual(self.targets("found", smi=smi), EVERY, smi)
            self.assertIn("lists no card that the kernels run on: they are compiled for every one", self.configure("found", smi=smi))
            self.assertIn("BANTAM_CUDA_ARCHS=native, but nvidia-smi lists no card", self.configure("native", smi=smi))
            self.assertEqual(self.status, 1)

    def test_cards_that_are_named(self):
        self.assertEqual(self.targets("80;90-virtual", ["8.9"]), "sm_80 compute_90")
        self.assertIn("a card of 9.0 itself is refused", self.configure("80;90-virtual"))
        self.assertNotIn("refused", self.configure("90a;90-virtual"))
        self.assertEqual(self.targets(None, ["8.9"]), EVERY)
        self.assertEqual(self.targets("86;130"), "sm_86")
        for plain in ("90", "90a;90", "90;90a", "90a-virtual"):
            self.assertEqual(self.targets(plain), "sm_90a")
            self.assertIn("90a instead of 90", self.configure(plain))
        self.assertIn("BANTAM_CUDA_ARCHS=130: nvcc knows none of them", self.configure("130"))
        self.assertEqual(self.status, 1)


if __name__ == "__main__":
    unittest.main()
