#!/usr/bin/env python3
"""tidy.py on small trees: every rule fires on what it forbids and keeps quiet on what it allows."""

import pathlib
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tidy  # noqa: E402

CLEAN = {
    "base/CMakeLists.txt": "bantam_room(base alloc.c ring.c)\n",
    "base/alloc.h": "#pragma once\nvoid *mem_alloc(unsigned long n);\n",
    "base/alloc.c": '#include "base/alloc.h"\n#include <stdlib.h>\nvoid *mem_alloc(unsigned long n)\n{\n'
                    "    return malloc(n);\n}\n",
    "base/ring.h": "#pragma once\n",
    "base/ring.c": '#include "base/ring.h"\nvoid stop(void)\n{\n    abort();\n}\n',
    "cli/CMakeLists.txt": "add_executable(bantam main.c)\n",
    "cli/main.c": '#include "base/ring.h"\nint main(void)\n{\n    exit(0);\n}\n',
    "README.md": "# A house\n",
    "docs/README.md": "# Another\n",
}


class TidyTest(unittest.TestCase):
    def check(self, changes=None, with_format=False):
        """Violations of the clean tree with changes: {path: text, or None for "not there"}."""
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for path, text in {**CLEAN, **(changes or {})}.items():
                if text is None:
                    continue
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text, encoding="utf-8")
            return tidy.check_tree(root, with_format)[0]

    def assert_fires(self, rule, path, line, changes, text=""):
        found = self.check(changes)
        matching = [v for v in found if v[0] == path and v[1] == line and v[2] == rule and text in v[3]]
        self.assertTrue(matching, f"expected {path}:{line}: {rule}, found {found}")

    def assert_quiet(self, changes):
        self.assertEqual(self.check(changes), [])

    @staticmethod
    def room(name, body, header=""):
        """A room of one file that is built."""
        return {f"{name}/CMakeLists.txt": f"bantam_room({name} {name}_part.c)\n", f"{name}/{name}_part.c": body + header}

    def test_clean_tree(self):
        self.assert_quiet({})

    def test_every_forbidden_direction_fires(self):
        rooms = list(tidy.INCLUDE_TABLE)
        for source in rooms:
            for target in rooms:
                changes = self.room(source, f'#include "{target}/{target}_face.h"\n')
                changes[f"{target}/{target}_face.h"] = "#pragma once\n"
                if source in ("base", "cli"):
                    name = f"{source}/CMakeLists.txt"
                    changes[name] = CLEAN[name] + changes[name]
                fired = [v for v in self.check(changes) if v[2] == "include"]
                allowed = source == target or target in tidy.INCLUDE_TABLE[source]
                self.assertEqual(not fired, allowed, f"{source} -> {target}: {fired}")

    def test_directions_of_the_design(self):
        """Spelled out, so that a slip in the table itself shows."""
        for source, target in [("scheduler", "model"), ("scheduler", "kernels"), ("scheduler", "proto"),
                               ("engine", "proto"), ("model", "proto"), ("router", "engine"), ("router", "model"),
                               ("router", "kernels"), ("router", "scheduler"), ("base", "api"), ("model", "text"),
                               ("text", "engine"), ("server", "model"), ("server", "engine"),
                               ("router", "server"), ("engine", "kernels")]:
            self.assertNotIn(target, tidy.INCLUDE_TABLE[source], f"{source} -> {target}")

    def test_tests_include_anything(self):
        self.assert_quiet({"tests/base/CMakeLists.txt": "bantam_test(test_x test_x.c)\n",
                           "tests/base/test_x.c": '#include "base/ring.h"\n'})

    def test_include_exceptions_are_exact(self):
        body = '#include "kernels/step.h"\n#include "kernels/packed.h"\n'
        changes = {**self.room("engine", body), "kernels/step.h": "#pragma once\n", "kernels/packed.h": "#pragma once\n"}
        self.assertEqual([(v[1], v[2]) for v in self.check(changes)], [(2, "include")])

    def test_include_paths(self):
        self.assert_fires("include", "base/ring.c", 1, {"base/ring.c": '#include "ring.h"\n#include "base/ring.h"\n'},
                          "not a path from the root")
        self.assert_fires("include", "base/ring.c", 1,
                          {"base/ring.c": '#include <base/alloc.h>\n#include "base/ring.h"\n'}, "is ours")
        self.assert_fires("include", "base/ring.c", 2, {"base/ring.c": '#include "base/ring.h"\n#include <assert.h>\n'})
        self.assert_fires("include", "odd/odd_part.c", 1, self.room("odd", '#include "base/ring.h"\n'), "no row")
        self.assert_fires("include", "base/ring.c", 1,
                          {"base/ring.c": '#include "bantam_generated.h"\n#include "base/ring.h"\n'}, "facade")
        self.assert_quiet({"base/ring.c": '#include "base/ring.h"\n/*\n#include "gone.h"\n*/\n'})

    def test_libraries(self):
        self.assert_fires("include", "model/model_part.c", 1, self.room("model", "#include <grpc/grpc.h>\n"))
        self.assert_fires("include", "scheduler/scheduler_part.c", 1, self.room("scheduler", "#include <pthread.h>\n"))
        self.assert_fires("include", "scheduler/scheduler_part.c", 1, self.room("scheduler", "#include <sys/mman.h>\n"))
        self.assert_quiet(self.room("proto", "#include <grpc/grpc.h>\n#include <pthread.h>\n"))

    def test_banned_calls(self):
        for name in ["strcpy", "strcat", "sprintf", "vsprintf", "gets", "strtok", "atoi", "atof", "alloca", "rand",
                     "srand", "system", "popen", "usleep", "sleep", "malloc", "calloc", "realloc", "free", "strdup",
                     "assert", "abort", "exit"]:
            changes = self.room("text", f"int f(void)\n{{\n    return {name} (1);\n}}\n")
            self.assert_fires("call", "text/text_part.c", 3, changes, f"{name}()")

    def test_calls_that_are_no_calls(self):
        body = ('/* malloc(1) */ // free(2)\nchar *s = "exit(3) \\" abort()";\nint c = \'"\'; void g(void);\n'
                "void f(struct v *v)\n{\n    v->free(1);\n    v->w.exit(2);\n    my_free(3);\n    static_assert(1);\n"
                "    int (*malloc)(void) = 0;\n}\n#define LEAVE() exit(1)\n")
        self.assert_quiet(self.room("text", body))

    def test_calls_by_place(self):
        self.assert_fires("call", "base/ring.c", 4,
                          {"base/ring.c": '#include "base/ring.h"\nvoid f(void)\n{\n    free(0);\n}\n'})
        self.assert_fires("call", "cli/main.c", 4,
                          {"cli/main.c": '#include "base/ring.h"\nint main(void)\n{\n    abort();\n}\n'})
        build = {"tests/CMakeLists.txt": "bantam_test(test_x test_x.c)\n"}
        self.assert_quiet({**build, "tests/test_x.c": "void f(void)\n{\n    free(0);\n    exit(1);\n}\n"})
        self.assert_fires("call", "tests/test_x.c", 3,
                          {**build, "tests/test_x.c": "void f(void)\n{\n    strcpy(0, 0);\n}\n"})

    def test_call_with_a_reason(self):
        body = "void f(char *p)\n{\n    free(p); /* tidy: allow free: the library allocated it */\n}\n"
        self.assert_quiet(self.room("text", body))
        for bad in [body.replace("free: the library allocated it", "free:"), body.replace("allow free", "allow exit")]:
            self.assert_fires("call", "text/text_part.c", 3, self.room("text", bad))

    def test_pragma_once(self):
        self.assert_fires("pragma", "base/ring.h", 1, {"base/ring.h": "/* #pragma once */\n"})
        body = {"kernels/x86/rows_x86.h": "int x;\n", "kernels/x86/rows.h": "int x;\n"}
        changes = {**self.room("kernels", '#include "kernels/x86/rows_x86.h"\n#include "kernels/x86/rows.h"\n'), **body}
        self.assertEqual([v[0] for v in self.check(changes)], ["kernels/x86/rows.h"])

    def test_unique_names(self):
        self.assert_fires("name", "text/ring.c", 1,
                          {"text/CMakeLists.txt": "bantam_room(text ring.c)\n", "text/ring.c": "int x;\n"})

    def test_dead_files(self):
        self.assert_fires("dead", "base/lost.c", 1, {"base/lost.c": "int x;\n"})
        self.assert_fires("dead", "base/lost.c", 1,
                          {"base/lost.c": "int x;\n", "text/CMakeLists.txt": "# lost.c is not built\n"})
        self.assert_fires("dead", "base/lost.h", 1, {"base/lost.h": "#pragma once\n"})
        pattern = {"base/CMakeLists.txt": "bantam_room(base alloc.c ring.c)\nforeach(isa one two)\n"
                                          "  add_source(x86/linear_${isa}.c)\nendforeach()\n"}
        self.assert_quiet({**pattern, "base/x86/linear_one.c": "int x;\n"})
        self.assert_fires("dead", "base/x86/linear_ten.c", 1, {**pattern, "base/x86/linear_ten.c": "int x;\n"})
        self.assert_quiet({"base/part.c": "int x;\n", "base/ring.c": '#include "base/ring.h"\n#include "base/part.c"\n'})

    def test_function_length(self):
        def function(n_lines, head="int f(void)"):
            return f"{head}\n{{\n" + "    work();\n" * (n_lines - 2) + "}\n"

        self.assert_quiet(self.room("text", function(90)))
        self.assert_fires("length", "text/text_part.c", 2, self.room("text", function(91)), "91 lines")
        self.assert_quiet(self.room("text", function(90) + function(90, "int g(void)")))
        self.assert_quiet(self.room("text", "static const int t[] = {\n" + "    1,\n" * 200 + "};\n"))
        self.assert_quiet(self.room("text", "struct s {\n" + "    int (*f)(void);\n" * 200 + "};\n"))
        table = "    const struct row rows[] = {\n" + "        {.n = 1},\n" * 100 + "    };\n"
        self.assert_quiet(self.room("text", function(89).replace("    work();\n", table, 1)))
        self.assert_fires("length", "text/text_part.c", 2,
                          self.room("text", function(91).replace("    work();\n", table, 1)), "91 lines")
        tricky = function(90).replace("work();", 'say("}", \'{\'); /* } */ // {', 1)
        self.assert_quiet(self.room("text", tricky))
        branches = "int f(int a)\n{\n#if X\n    if (a) {\n#else\n    if (!a) {\n#endif\n        a();\n    }\n}\n"
        self.assert_fires("length", "text/text_part.c", 12, self.room("text", branches + function(91)))
        wrapped = 'extern "C" {\n' + function(91) + "}\n"
        self.assert_fires("length", "text/text_part.c", 3, self.room("text", wrapped))
        attribute = function(91, "int f(int a, struct s b[static 3])")
        self.assert_fires("length", "text/text_part.c", 2, self.room("text", attribute))

    def test_file_length(self):
        self.assert_quiet(self.room("text", "int x;\n" * 900))
        self.assert_fires("length", "text/text_part.c", 901, self.room("text", "int x;\n" * 901))

    def test_text_rules(self):
        mark = "TO" + "DO"
        self.assert_fires("open-end", "README.md", 2, {"README.md": f"# A\n{mark}: later\n"})
        self.assert_quiet({"README.md": f"# A\n{mark} #12: later\n"})
        for machine_path in ["/wo" + "rk/main/x", "/ro" + "ot/.ssh", "/tmp/h" + "q/x", "cd /wo" + "rk"]:
            self.assert_fires("path", "README.md", 2, {"README.md": f"# A\n{machine_path}\n"})
        self.assert_quiet({"README.md": "# A\ndemo/wo" + "rk/ and frame" + "work/x and /tmp/x\n"})
        self.assert_fires("whitespace", "README.md", 1, {"README.md": "# A \n"})
        self.assert_fires("whitespace", "README.md", 1, {"README.md": "# A"})
        self.assert_fires("whitespace", "scripts/go", 2, {"scripts/go": "#!/bin/sh\ntrue \n"})
        self.assert_quiet({"tests/fuzz/corpus/x/odd.c": "strcpy( \n", "build/x.c": "strcpy( \n"})

    @unittest.skipIf(shutil.which("clang-format") is None, "clang-format is not installed")
    def test_format(self):
        style = {".clang-format": "BasedOnStyle: LLVM\nIndentWidth: 4\nBreakBeforeBraces: Linux\n"}
        bad = {**style, "base/ring.c": '#include "base/ring.h"\nint   x;\n'}
        fired = [v for v in self.check(bad, with_format=True) if v[2] == "format"]
        self.assertEqual([v[0] for v in fired if v[0] == "base/ring.c"], ["base/ring.c"])
        good = {**style, "base/ring.c": '#include "base/ring.h"\nint x;\n'}
        fired = [v for v in self.check(good, with_format=True) if v[0] == "base/ring.c"]
        self.assertEqual(fired, [])


if __name__ == "__main__":
    unittest.main()
