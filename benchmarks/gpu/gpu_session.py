"""What the parts of benchmarks/gpu/run share: commands that end when their time is up, and results that are on disk after
each part, so that a run that is cut leaves what it has measured."""

import datetime
import glob
import json
import os
import pathlib
import platform
import queue
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TAIL_LINES = 12  # of a failed command, kept in the results


class PartFailed(Exception):
    """Says for people why a part, or an item of it, has no figure."""


class PartSkipped(Exception):
    """Says what this machine or build lacks that the part is about."""


class Done:
    """A finished command: its output, and whether its time was up."""

    def __init__(self, status, lines, timed_out):
        self.status, self.lines, self.timed_out = status, lines, timed_out

    def rows(self):
        """The JSON objects among the lines, but for those of the log; a line cut short is none."""
        found = []
        for line in self.lines:
            if line.startswith("{"):
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if not {"ts", "level", "area", "msg"} <= set(row):
                    found.append(row)
        return found


class Session:
    """One run. `figures` of a part are filled while it runs: what is measured stays, whatever comes after."""

    def __init__(self, options):
        self.device = options.device
        self.small = options.small
        self.build = pathlib.Path(options.build).resolve()
        self.out = pathlib.Path(options.out)
        self.keep_build = options.no_build
        self.began = time.monotonic()
        self.deadline = self.began + 60 * options.minutes
        self.part_deadline = self.deadline
        self.log = self.out.with_suffix(".log")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")
        self.work = self.build / "gpu-work"
        self.results = {"machine": machine(self.device), "commit": commit(), "small": self.small,
                        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "parts": {}}
        self.environment = dict(os.environ)
        folders = library_folders()
        if folders:
            self.environment["LD_LIBRARY_PATH"] = ":".join(folders + [os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(":")

    @property
    def bantam(self):
        return str(self.build / "bantam")

    def left_s(self):
        return self.part_deadline - time.monotonic()

    def run(self, argv, limit_s=None, environment=None):
        """A command whose output goes to the log and back; stopped when the part's time, or limit_s, is up. With
        everything it started: a compiler left behind would disturb the figures."""
        limit_s = min(self.left_s(), limit_s or self.left_s())
        if limit_s <= 0:
            raise PartFailed("no time left")
        argv = [str(word) for word in argv]
        with open(self.log, "a", encoding="utf-8") as log:
            log.write("$ " + " ".join(argv) + "\n")
            log.flush()
            process = subprocess.Popen(argv, cwd=ROOT, env={**self.environment, **(environment or {})},
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       text=True, errors="replace", start_new_session=True)
            lines, timed_out = read_lines(process, limit_s, log)
        return Done(process.returncode, lines, timed_out)

    def must(self, argv, **more):
        """The same, but a failure ends the part. What a cut command printed is lost: use run() where it counts."""
        done = self.run(argv, **more)
        check(done, argv)
        return done

    def rows(self, argv, into, **more):
        """Runs a bench that prints JSON objects, a line each as they are measured: they are in the list `into` even when
        the command then fails or its time is up."""
        done = self.run(argv, **more)
        into.extend(done.rows())
        check(done, argv)

    def part(self, name, limit_s, function):
        entry = self.results["parts"][name] = {"status": "running", "figures": {}}
        self.part_deadline = min(self.deadline, time.monotonic() + limit_s)
        began = time.monotonic()
        say(f"--- {name}: at most {max(0, self.left_s()):.0f} s")
        try:
            function(self, entry["figures"])
            entry["status"] = "ok"
        except PartSkipped as why:
            entry["status"], entry["error"] = "skipped", str(why)
        except PartFailed as failure:
            entry["status"], entry["error"] = "failed", str(failure)
        except Exception as failure:  # a defect of the script must not take the other parts' figures along
            entry["status"], entry["error"] = "failed", f"{type(failure).__name__}: {failure}"
        entry["seconds"] = round(time.monotonic() - began, 1)
        say(f"--- {name}: {entry['status']} after {entry['seconds']} s" +
            (f": {entry['error']}" if "error" in entry else ""))
        self.write()

    def write(self):
        self.results["seconds"] = round(time.monotonic() - self.began, 1)
        new = self.out.with_suffix(".new")
        new.write_text(json.dumps(self.results, indent=1) + "\n")
        new.replace(self.out)


def say(text):
    print(text, flush=True)


def check(done, argv):
    if done.timed_out:
        raise PartFailed(f"time was up for: {' '.join(str(word) for word in argv)}")
    if done.status != 0:
        tail = "\n".join(line for line in done.lines[-TAIL_LINES:] if not line.startswith('{"'))
        raise PartFailed(f"status {done.status} of {pathlib.Path(argv[0]).name} {' '.join(map(str, argv[1:4]))} ...: {tail}")


def read_lines(process, limit_s, log):
    """All lines until the process ends or is stopped. A thread reads: a silent process must be stoppable too."""
    arrived = queue.Queue()

    def reader():
        for line in process.stdout:
            arrived.put(line)
        arrived.put(None)

    threading.Thread(target=reader, daemon=True).start()
    lines, timed_out, deadline = [], False, time.monotonic() + limit_s
    while True:
        try:
            line = arrived.get(timeout=max(0.01, deadline - time.monotonic()) if not timed_out else 10)
        except queue.Empty:
            if timed_out:
                break
            timed_out = True
            stop_group(process)
            continue
        if line is None:
            break
        log.write(line)
        lines.append(line.rstrip("\n"))
    process.wait()
    return lines, timed_out


def stop_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def library_folders():
    """Where the nvidia-* packages of this Python have cuBLASLt, NCCL and the like; the loader does not look there."""
    folders = []
    for path in sys.path:
        for folder in sorted(glob.glob(os.path.join(path, "nvidia", "*", "lib"))):
            if folder not in folders:
                folders.append(folder)
    return folders


def output_of(argv, cwd=ROOT):
    try:
        return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def commit(root=ROOT):
    """Of the repository that begins here; a bundle may be unpacked inside another one, whose commit says nothing of it."""
    top, bundled = output_of(["git", "rev-parse", "--show-toplevel"], root), root / "build/bundled/commit"
    if top and pathlib.Path(top).resolve() == root.resolve():
        return output_of(["git", "describe", "--always", "--dirty", "--abbrev=12"], root)
    return bundled.read_text().strip() if bundled.exists() else None


def machine(device):
    found = {"device": device, "host": platform.machine(), "cpus": os.cpu_count(), "kernel": platform.release()}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            found["cpu"] = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    if device == "cuda":
        fields = ["name", "driver_version", "memory.total", "compute_cap", "clocks.max.sm", "clocks.max.mem", "power.limit"]
        answer = output_of(["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader"])
        if answer:
            cards = [dict(zip(fields, map(str.strip, line.split(",")))) for line in answer.splitlines()]
            found["cards"], found["card"], found["driver"] = cards, cards[0]["name"], cards[0]["driver_version"]
        nvcc = output_of(["nvcc", "--version"]) or output_of(["/usr/local/cuda/bin/nvcc", "--version"])
        if nvcc:
            found["nvcc"] = nvcc.splitlines()[-1]
    return found
