"""What scripts/bundle makes works where it is meant to: sources on a machine with a compiler and CMake alone, the program on a
machine with glibc alone. Such a machine is made of this one: a mount namespace in which everything else is hidden. Where the
kernel allows none, the tests are skipped.

BANTAM_BIN names the program (default build/release/bantam). BANTAM_SANITIZED=1 says that it is not one to be bundled."""

import os
import pathlib
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BANTAM_BIN", ROOT / "build/release/bantam")).resolve()
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
CAN_UNSHARE = subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode == 0

COST_S = 130
pytestmark = [
    pytest.mark.skipif(os.environ.get("BANTAM_SANITIZED", "0") == "1", reason="bundles are made of the release build"),
    pytest.mark.skipif(not CAN_UNSHARE, reason="no mount namespaces here"),
]

# What a bare machine lacks: headers, libraries and programs of the packages that the project uses. (Shared libraries
# stay: the linker itself needs jansson's. What the program links is checked below.)
HIDDEN = ("/usr/include/{jansson,jansson_config,utf8proc,xxhash,xxh3,cmocka}.h /usr/include/{grpc,flatbuffers,absl,event2} "
          "/usr/lib/*/lib{jansson,utf8proc,xxhash,cmocka,grpc,gpr,flatbuffers,event,event_core}.a /usr/lib/*/pkgconfig /usr/share/pkgconfig "
          "/usr/bin/{pkg-config,pkgconf,flatc,ninja,git,clang-format} /usr/bin/*-pkg-config /usr/local/bin/*")


def run(command, environment=None, **more):
    clean = {"PATH": SYSTEM_PATH, "HOME": "/nonexistent", "LANG": "C.UTF-8"} | (environment or {})
    return subprocess.run(command, env=clean, capture_output=True, text=True, check=False, timeout=2400, **more)


def bundle(*arguments, environment=None):
    done = run(["scripts/bundle", *map(str, arguments)], environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_engine_builds_with_a_compiler_and_cmake_alone(tmp_path):
    bundle("source", tmp_path / "source.tar.gz")
    subprocess.run(["tar", "-xzf", tmp_path / "source.tar.gz"], cwd=tmp_path, check=True)
    shutil.rmtree(tmp_path / "bantam/.git", ignore_errors=True)
    # The optimiser is left to the other builds: what is tested is what must not be there. Of kernels one file, and where
    # nvcc is, for the card that nvidia-smi lists: make knows what it was compiled from.
    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "nvidia-smi").write_text("#!/bin/sh\necho 9.0\n")
    (cards / "nvidia-smi").chmod(0o755)
    script = f"""set -eu
        shopt -s nullglob
        mkdir {tmp_path}/empty
        for path in {HIDDEN}; do
            [ ! -d "$path" ] || mount --bind {tmp_path}/empty "$path"
            [ ! -f "$path" ] || mount --bind /dev/null "$path"
        done
        ! echo '#include <jansson.h>
            json_t *unused;' | cc -fsyntax-only -x c - 2>/dev/null
        cd {tmp_path}/bantam
        PATH={cards}:$PATH cmake --preset engine -DCMAKE_BUILD_TYPE=None
        cmake --build --preset engine --parallel "$(nproc)" --target bantam checkkernel
        if grep -q '^BANTAM_NVCC_PROGRAM:FILEPATH=/' build/engine/CMakeCache.txt; then
            cmake --build --preset engine --target dump_fragments
            touch kernels/cuda/ptx_wgmma.h
            cmake --build --preset engine --target dump_fragments
            cmake --build --preset engine --target dump_fragments
        fi
        ldd build/engine/bantam
        build/engine/bantam bench throughput tests/parity/checkpoints/llama-gqa --input-len 8 --output-len 4 --json
        build/engine/tests/kernels/checkkernel --device cpu --quick --runs 2
    """
    done = run(["unshare", "-rm", "bash", "-c", script])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert '"output_tokens":32' in done.stdout
    assert "Unix Makefiles" in (tmp_path / "bantam/build/engine/CMakeCache.txt").read_text()
    has_nvcc = "-- nvcc: none" not in done.stdout
    assert done.stdout.count("Compiling dump_fragments.cu for sm_90a\n") == (2 if has_nvcc else 0), done.stdout[-3000:]
    linked = {line.split()[0].split(".so")[0] for line in done.stdout.splitlines() if line.startswith("\t")}
    assert linked <= {"linux-vdso", "libm", "libc", "/lib64/ld-linux-x86-64", "/lib/ld-linux-aarch64"}, linked


def test_program_runs_with_glibc_alone(tmp_path):
    folder = tmp_path / "root/bantam"
    has_cuda = any((BIN.parent / "kernels/cuda").glob("*.cu.o"))  # nvcc is here, and ctest has compiled with it
    if has_cuda:
        subprocess.run(["cmake", "--build", BIN.parent, "--target", "bantam_cuda"], check=True, capture_output=True, timeout=2400)
    listing = bundle("program", folder, environment={"BANTAM_BIN": str(BIN)})
    assert "needs glibc 2." in listing and "KiB" in listing
    assert listing == (folder / "manifest").read_text()
    assert ("  libbantam_cuda.so\n" in listing) == has_cuda == (folder / "libbantam_cuda.so").exists()
    root = tmp_path / "root"
    for library in ("libc.so.6", "libm.so.6", "libresolv.so.2", "libpthread.so.0", "libdl.so.2", "librt.so.1"):
        found = run(["cc", f"-print-file-name={library}"]).stdout.strip()
        (root / "lib").mkdir(exist_ok=True)
        shutil.copy(found, root / "lib" / library)
    interpreter = next(line.split()[0] for line in run(["ldd", str(BIN)]).stdout.splitlines() if "/ld-linux" in line)
    (root / interpreter[1:]).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(interpreter, root / interpreter[1:])
    (root / "proc").mkdir()
    (root / "dev").mkdir()
    for device in ("null", "urandom"):
        (root / "dev" / device).touch()

    # The server says where it listens and goes when it is asked to.
    script = f"""set -eu
        for device in null urandom; do mount --bind /dev/$device {shlex.quote(str(root))}/dev/$device; done
        mount --rbind /proc {shlex.quote(str(root))}/proc
        in_root() {{ chroot {shlex.quote(str(root))} /bantam/bantam "$@"; }}
        in_root --version
        in_root run /bantam/demo-model --prompt 'The train to' --max-tokens 5 --temperature 0 --json
        ! in_root run /bantam/demo-model --prompt 'The train to' --device cuda 2>{tmp_path}/cuda.txt
        coproc SERVER {{
            exec chroot {shlex.quote(str(root))} /bantam/bantam serve /bantam/demo-model --port 0 --http-port 0 --metrics-port 0 2>/dev/null
        }}
        server=$SERVER_PID
        read -r line <&"${{SERVER[0]}}"
        echo "$line"
        kill -TERM $server
        wait $server
    """
    done = run(["unshare", "-rm", "bash", "-c", script])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("bantam ") and "token_ids" in done.stdout and "listening on 127.0.0.1:" in done.stdout
    # The library beside the program is found and loads with what is in the folder; what it then misses is a driver.
    assert ("NVIDIA driver" if has_cuda else "libbantam_cuda.so") in (tmp_path / "cuda.txt").read_text()


def test_bundle_replaces_only_its_own(tmp_path):
    bundle("libraries", tmp_path / "made")
    bundle("libraries", tmp_path / "made")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    done = run(["scripts/bundle", "libraries", str(tmp_path / "mine")], cwd=ROOT)
    assert done.returncode == 1 and "no bundle" in done.stderr
    assert (tmp_path / "mine/thesis.txt").exists()
    done = run(["scripts/bundle"], cwd=ROOT)
    assert done.returncode == 2 and "scripts/bundle program" in done.stderr
