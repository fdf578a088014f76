#!/usr/bin/env python3
"""The number that program and libbantam_cuda.so must share: cmake/interface_number.cmake over headers made for it."""

import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class InterfaceNumber(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name)
        (self.path / "base").mkdir()
        (self.path / "door.h").write_text('#pragma once\n#include <stdint.h>\n#include "middle.h"\nint door(void);\n')
        (self.path / "middle.h").write_text('#include "base/error.h"\n#include "door.h" /* a circle */\n')
        (self.path / "base/error.h").write_text("enum { OK };\n")
        (self.path / "other.h").write_text("\n")

    def number(self):
        script = self.path / "print.cmake"
        script.write_text('cmake_minimum_required(VERSION 3.22)\n'
                          f'include({ROOT}/cmake/interface_number.cmake)\nbantam_interface_number(number door.h)\n'
                          'message(STATUS "${number}")\n')
        # A project, as the headers become what CMake's next run depends on.
        (self.path / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.22)\nproject(none NONE)\ninclude(print.cmake)\n")
        done = subprocess.run(["cmake", "-S", self.path, "-B", self.path / "build"], capture_output=True, text=True, check=True,
                              timeout=60)
        (number,) = (line[3:] for line in done.stdout.splitlines() if line.startswith("-- 0x"))
        self.assertEqual(len(number), 10)
        return number

    def test_it_changes_with_every_header_that_is_reached(self):
        seen = [self.number()]
        (self.path / "other.h").write_text("enum { OTHER };\n")
        self.assertEqual(self.number(), seen[0])
        for header in ("door.h", "middle.h", "base/error.h"):
            (self.path / header).write_text((self.path / header).read_text() + "enum { MORE };\n")
            number = self.number()
            self.assertNotIn(number, seen)
            seen.append(number)


if __name__ == "__main__":
    unittest.main()
