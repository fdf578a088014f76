#!/usr/bin/env python3
"""House rules that a compiler does not check. `tidy.py [--root DIR] [--no-format]` prints one line a violation,
"path:line: rule: what is wrong and what would be right", and ends with 1 when there was any. Needs no build."""

import argparse
import collections
import pathlib
import re
import shutil
import subprocess
import sys

# Who may include whom: a room, and the rooms whose headers it may name. Every room may include its own.
INCLUDE_TABLE = {
    "base": set(),
    "api": {"base"},
    "text": {"base", "api"},
    "kernels": {"base"},
    "model": {"base", "kernels"},
    "scheduler": {"base", "api"},
    "engine": {"base", "api", "text", "model", "scheduler"},
    "proto": {"base", "api"},
    "server": {"base", "api", "proto"},
    "router": {"base", "api", "text", "proto", "clients"},
    "benchmarks": {"base", "api", "kernels", "engine", "proto", "clients"},
    "clients": {"base", "api", "proto"},
    # The program: it starts what the sub-commands name.
    "cli": {"base", "api", "text", "engine", "server", "router", "benchmarks"},
}
# Plain data that stands in the interface of model/ and so reaches engine/, which fills and reads it.
INCLUDE_EXCEPTIONS = {("engine", "kernels/step.h"), ("engine", "kernels/sampler.h")}
FREE_ROOMS = {"tests"}

# Headers meant to be included several times: bodies that are compiled once for each instruction set.
REPEATED_HEADERS = re.compile(r"kernels/x86/\w+_x86\.h\Z")

# Libraries that only some rooms may know: everything but the doors builds without gRPC, FlatBuffers, nanopb and libevent.
LIBRARY_ROOMS = [
    (re.compile(r"(grpc|grpcpp|flatbuffers|event2|openssl)/|pb(_\w+)?\.h|zlib\.h"), {"proto", "server", "router", "benchmarks", "clients", "tests"}),
    (re.compile(r"(curl/|hiredis/|sqlite3\.h|yaml\.h)"), {"router", "tests"}),
    (re.compile(r"(pthread\.h|threads\.h|time\.h|unistd\.h|poll\.h|sys/|linux/)"),
     set(INCLUDE_TABLE) - {"scheduler"} | {"tests"}),  # the scheduler has no threads, clock or I/O
]

MEMORY_CALLS = {"malloc", "calloc", "realloc", "reallocarray", "free", "strdup", "strndup", "asprintf", "vasprintf",
                "aligned_alloc", "posix_memalign", "memalign"}
BANNED_CALLS = {
    "strcpy": "snprintf or memcpy", "strcat": "struct buffer", "strncat": "struct buffer", "stpcpy": "snprintf",
    "sprintf": "snprintf", "vsprintf": "vsnprintf", "gets": "fgets", "strtok": "strtok_r or strcspn",
    "atoi": "strtol with its checks", "atol": "strtol with its checks", "atoll": "strtoll with its checks",
    "atof": "strtod with its checks", "alloca": "mem_alloc or a bounded array", "rand": "base/philox.h",
    "srand": "base/philox.h", "random": "base/philox.h", "srandom": "base/philox.h", "drand48": "base/philox.h",
    "system": "a function call", "popen": "a function call", "tmpnam": "mkstemp", "mktemp": "mkstemp",
    "assert": "ASSERT of base/assert.h, which stays on in release",
}
SLEEP_CALLS = {"sleep", "usleep"}

CODE_SUFFIXES = {".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".cuh"}
UNIT_SUFFIXES = {".c", ".cc", ".cpp", ".cu"}
HEADER_SUFFIXES = {".h", ".hpp", ".cuh"}
TEXT_SUFFIXES = CODE_SUFFIXES | {".py", ".sh", ".cmake", ".md", ".fbs", ".proto", ".toml", ".yml", ".yaml", ".inc"}
TEXT_NAMES = {"CMakeLists.txt", "requirements.txt", "CMakePresets.json", ".clang-format", ".clang-tidy", ".gitignore"}
REPEATED_NAMES = {"CMakeLists.txt", "README.md", "__init__.py", "conftest.py", "requirements.txt"}
SKIPPED_FOLDERS = {".git", "build", ".venv", ".cache", "__pycache__", ".pytest_cache"}
SKIPPED_PATHS = {"demo/work"}
DATA_FOLDERS = {"corpus", "goldens", "golden"}

FUNCTION_LINES_MAX = 90
FILE_LINES_MAX = 900
GENERATED_SUFFIX = "_generated.py"  # made by flatc; a test holds it against the schema
CLANG_FORMAT_MAJOR = 14  # other versions lay out a few constructs differently

# Written in two halves, so that this file does not break its own rules.
OPEN_END = re.compile(r"\b(" + "TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
MACHINE_PATH = re.compile(r"(?<![\w./-])/(wo" + r"rk|ro" + r"ot|tmp/h" + r"q)(/|\b)")


class Source:
    """One text file: its lines, and for C and C++ the same with comments and strings blanked out."""

    def __init__(self, root, path):
        self.path = path
        self.name = path.rsplit("/", 1)[-1]
        self.room = path.split("/", 1)[0] if "/" in path else ""
        self.suffix = pathlib.PurePosixPath(path).suffix
        self.text = (root / path).read_text(encoding="utf-8", errors="replace")
        self.lines = self.text.split("\n")
        self.is_code = self.suffix in CODE_SUFFIXES
        self.bare = blank_comments_and_strings(self.text) if self.is_code else ""
        self.bare_lines = self.bare.split("\n")


class Report:
    def __init__(self):
        self.violations = []

    def add(self, path, line, rule, message):
        self.violations.append((path, line, rule, message))


SCANNER = re.compile(
    r"//(?:[^\n\\]|\\.|\\\n)*"          # line comment, also continued
    r"|/\*.*?(?:\*/|\Z)"                # block comment
    r'|R"([^\s()\\]{0,16})\(.*?\)\1"'   # C++ raw string
    r'|"(?:[^"\\\n]|\\.|\\\n)*"'        # string
    r"|(?<![0-9a-zA-Z_])'(?:[^'\\\n]|\\.)*'",  # character, but not the separator of 1'000
    re.S)


def blank_comments_and_strings(text):
    """The same text with every character of comments and string contents a blank; lines keep their numbers."""

    def blank(match):
        token = match.group(0)
        blanked = "".join("\n" if c == "\n" else " " for c in token)
        if token[0] in "\"'":
            blanked = token[0] + blanked[1:-1] + token[-1]
        return blanked

    return SCANNER.sub(blank, text)


def list_files(root):
    found = []

    def walk(folder, prefix):
        for entry in sorted(folder.iterdir()):
            path = prefix + entry.name
            if entry.is_symlink():
                continue
            if entry.is_dir():
                if entry.name not in SKIPPED_FOLDERS and path not in SKIPPED_PATHS:
                    walk(entry, path + "/")
            else:
                found.append(path)

    walk(root, "")
    return found


def is_text_source(root, path):
    parts = path.split("/")
    if DATA_FOLDERS & set(parts[:-1]):
        return False
    name = parts[-1]
    if name in TEXT_NAMES or pathlib.PurePosixPath(name).suffix in TEXT_SUFFIXES:
        return True
    if "." in name.lstrip("."):
        return False
    with open(root / path, "rb") as file:  # scripts without a suffix
        return file.read(2) == b"#!"


# Rules. Each takes what it looks at and the report.


def check_includes(source, all_paths, report):
    for number, line in enumerate(source.lines, 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if match is None or not source.bare_lines[number - 1].lstrip().startswith("#"):
            continue
        quote, target = match.groups()
        if quote == '"':
            check_own_include(source, number, target, all_paths, report)
            continue
        if target.split("/")[0] in INCLUDE_TABLE and "/" in target and target in all_paths:
            report.add(source.path, number, "include", f'<{target}> is ours: write "{target}"')
        if target == "assert.h":
            report.add(source.path, number, "include", "<assert.h> vanishes in release: use base/assert.h")
        for pattern, rooms in LIBRARY_ROOMS:
            if source.room in INCLUDE_TABLE and pattern.match(target) and source.room not in rooms:
                report.add(source.path, number, "include", f"{source.room}/ must not include <{target}>")


def check_own_include(source, number, target, all_paths, report):
    if target.endswith(("_generated.h", ".pb.h")):
        if source.room not in {"proto", "tests"} and not source.path.startswith("clients/cpp/"):
            report.add(source.path, number, "include", f"{target}: generated headers stay behind proto/'s facade")
        return
    if target not in all_paths:
        report.add(source.path, number, "include", f'"{target}" is not a path from the root of the repository')
        return
    room = target.split("/")[0]
    if source.room in FREE_ROOMS or room == source.room or (source.room, target) in INCLUDE_EXCEPTIONS:
        return
    allowed = INCLUDE_TABLE.get(source.room)
    if allowed is None:
        report.add(source.path, number, "include", f"{source.room or 'the root'} has no row in the include table")
    elif room not in allowed:
        may = ", ".join(sorted(allowed)) or "nothing but itself"
        report.add(source.path, number, "include", f"{source.room}/ must not include {target}; it may include {may}")


CALL = re.compile(r"(?<![\w.>])(\w+)\s*\(|(?<=[^-]>)(\w+)\s*\(")


def call_violation(source, name):
    """Why this file may not call it; None when it may."""
    if name in BANNED_CALLS:
        return f"{name}() is banned: use {BANNED_CALLS[name]}"
    if source.room == "tests":
        return None
    if name in SLEEP_CALLS:
        return f"{name}() is banned: wait for the event"
    if name in MEMORY_CALLS and source.path != "base/alloc.c":
        return f"{name}() is for base/alloc.c alone: use base/alloc.h"
    if name == "abort" and source.room != "base":
        return "abort() is for base/ alone: use ASSERT"
    if name in {"exit", "_exit", "quick_exit"} and source.room != "cli":
        return f"{name}() is for cli/ alone: return an error"
    return None


def check_calls(source, report):
    """A line may say why it needs one: "tidy: allow free: ..." in a comment on it or above it."""
    for number, line in enumerate(source.bare_lines, 1):
        if line.lstrip().startswith("#"):
            continue
        for match in CALL.finditer(line):
            name = match.group(1) or match.group(2)
            message = call_violation(source, name)
            if message is None:
                continue
            nearby = "\n".join(source.lines[max(0, number - 2):number])
            if re.search(r"tidy: allow " + name + r": \w", nearby) is None:
                report.add(source.path, number, "call", message)


def check_pragma_once(source, report):
    if REPEATED_HEADERS.match(source.path):
        return
    if source.suffix in HEADER_SUFFIXES and re.search(r"^#pragma once$", source.bare, re.M) is None:
        report.add(source.path, 1, "pragma", "a header needs #pragma once")


def check_unique_names(sources, report):
    by_name = collections.defaultdict(list)
    for source in sources:
        if source.name not in REPEATED_NAMES and source.suffix in TEXT_SUFFIXES:
            by_name[source.name].append(source.path)
    for paths in by_name.values():
        for path in paths[1:]:
            report.add(path, 1, "name", f"{paths[0]} has the same file name; names are unique in the repository")


def build_words(sources):
    """Words of all build files, and patterns of names made with ${...}, each with the words that may fill it."""
    words, patterns = set(), []
    for source in sources:
        if source.name != "CMakeLists.txt" and source.suffix != ".cmake":
            continue
        text = re.sub(r"#[^\n]*", "", source.text)
        own = {word.rsplit("/", 1)[-1] for word in re.findall(r"[\w./${}+-]+", text)}
        words |= own
        for word in own:
            if "${" in word and word.endswith(tuple(UNIT_SUFFIXES)):
                parts = re.split(r"\$\{\w+\}", word)
                patterns.append((re.compile("(.+)".join(map(re.escape, parts)) + r"\Z"), own))
    return words, patterns


def check_dead_files(sources, report):
    words, patterns = build_words(sources)
    included = set()
    for source in sources:
        if source.is_code or source.suffix == ".inc":
            included |= set(re.findall(r'^\s*#\s*include\s*"([^"]+)"', source.text, re.M))
    for source in sources:
        if source.path in included:
            continue
        if source.suffix in UNIT_SUFFIXES:
            made = any(m and set(m.groups()) <= own for p, own in patterns for m in [p.match(source.name)])
            if source.name not in words and not made:
                report.add(source.path, 1, "dead", "no CMakeLists.txt names this file")
        elif source.suffix in HEADER_SUFFIXES | {".inc"}:
            report.add(source.path, 1, "dead", "nobody includes this file")


def blank_preprocessor(bare):
    """Directives and their continuations blanked; of #if ... #else only the first branch stays, so braces balance."""
    out, continued, branches = [], False, []
    for line in bare.split("\n"):
        directive = re.match(r"\s*#\s*(\w+)", line)
        if continued or directive:
            if directive and not continued:
                word = directive.group(1)
                if word in {"if", "ifdef", "ifndef"}:
                    branches.append(True)
                elif word in {"else", "elif"} and branches:
                    branches[-1] = False
                elif word == "endif" and branches:
                    branches.pop()
            continued = line.endswith("\\")
            out.append("")
        else:
            out.append(line if all(branches) else "")
    return "\n".join(out)


def find_functions(bare):
    """(first line, lines) of every function body outside others; extern "C" and namespaces are looked into. Tables
    inside a function are data and not counted."""
    text = blank_preprocessor(bare)
    functions, stack, line, statement_start, n_table_lines = [], [], 1, 0, 0
    for at, c in enumerate(text):
        if c == "\n":
            line += 1
        elif c == "{":
            head = text[statement_start:at].strip()
            inside_function = any(kind == "function" for kind, _ in stack)
            if inside_function:
                inside_table = any(kind == "table" for kind, _ in stack)
                kind = "table" if head.endswith("=") and not inside_table else "block"
            elif re.search(r'^extern\s*"\s*"$|^(inline\s+)?namespace\b[\w\s:]*$', head):
                kind = "transparent"
            elif re.search(r"\b(struct|union|enum|class)\b[^()]*$", head) or head.endswith("="):
                kind = "type"
            elif re.search(r"\)\s*(const|noexcept|override|final|\s)*$", head) and "=" not in head.split("(")[0]:
                kind = "function"
            else:
                kind = "block"
            stack.append((kind, line))
            statement_start = at + 1
        elif c == "}":
            if stack:
                kind, first = stack.pop()
                if kind == "table":
                    n_table_lines += line - first
                elif kind == "function":
                    functions.append((first, line - first + 1 - n_table_lines))
                    n_table_lines = 0
            statement_start = at + 1
        elif c == ";":
            statement_start = at + 1
    return functions


def check_lengths(source, report):
    n_lines = source.text.count("\n")
    if n_lines > FILE_LINES_MAX and not source.name.endswith(GENERATED_SUFFIX):
        report.add(source.path, n_lines, "length", f"{n_lines} lines: a file has at most {FILE_LINES_MAX}")
    if not source.is_code:
        return
    for first, length in find_functions(source.bare):
        if length > FUNCTION_LINES_MAX:
            report.add(source.path, first, "length",
                       f"a function of {length} lines: at most {FUNCTION_LINES_MAX}, about 70 is meant")


def check_text(source, report):
    for number, line in enumerate(source.lines, 1):
        if line != line.rstrip():
            report.add(source.path, number, "whitespace", "blanks at the end of the line")
        if OPEN_END.search(line) and not re.search(r"#\d+", line):
            report.add(source.path, number, "open-end", f"{OPEN_END.search(line).group(1)} without an issue's #number")
        if MACHINE_PATH.search(line):
            report.add(source.path, number, "path", "a path of somebody's machine")
    if source.text and not source.text.endswith("\n"):
        report.add(source.path, len(source.lines), "whitespace", "no newline at the end of the file")


def check_format(root, sources, report):
    program = shutil.which("clang-format")
    if program is None:
        print("tidy: clang-format is not installed: the layout is not checked")
        return
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    major = re.search(r"version (\d+)", version)
    if major is None or int(major.group(1)) != CLANG_FORMAT_MAJOR:
        print(f"tidy: the layout is checked with clang-format {CLANG_FORMAT_MAJOR} only; this is {version.strip()}")
        return
    paths = [s.path for s in sources if s.is_code]
    if not paths:
        return
    done = subprocess.run([program, "--dry-run", "-Werror", "--style=file", *paths], cwd=root, capture_output=True,
                          text=True)
    seen = set()
    for match in re.finditer(r"^(.+?):(\d+):\d+: error: code should be clang-formatted", done.stderr, re.M):
        if match.group(1) not in seen:
            seen.add(match.group(1))
            report.add(match.group(1), int(match.group(2)), "format", "run clang-format -i on this file")
    if done.returncode != 0 and not seen:
        report.add(".clang-format", 1, "format", f"clang-format failed: {done.stderr.strip()[:200]}")


def check_tree(root, with_format=True):
    """All violations of the tree, in order."""
    report = Report()
    all_paths = list_files(root)
    path_set = set(all_paths)
    sources = [Source(root, path) for path in all_paths if is_text_source(root, path)]
    for source in sources:
        check_lengths(source, report)
        check_text(source, report)
        if source.is_code:
            check_includes(source, path_set, report)
            check_calls(source, report)
            check_pragma_once(source, report)
    check_unique_names(sources, report)
    check_dead_files(sources, report)
    if with_format:
        check_format(root, sources, report)
    return sorted(report.violations), len(sources)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument("--no-format", action="store_true", help="leave clang-format out")
    arguments = parser.parse_args()
    violations, n_files = check_tree(arguments.root, not arguments.no_format)
    for path, line, rule, message in violations:
        print(f"{path}:{line}: {rule}: {message}")
    print(f"tidy: {n_files} files, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
