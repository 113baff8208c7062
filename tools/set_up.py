"""Makes .venv from requirements.txt, or does nothing when it is there and fits.

Runs on any Python 3 that the machine has, and looks before it downloads: an unsupported Python or
platform, or a Python without venv, ends in one line. The environment fits when its stamp holds the
digest of the lock it was made from.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys

OLDEST, TOO_NEW = (3, 11), (3, 14)
PLATFORMS = (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64"))
OLDEST_MACOS = 15


def objection(version, system, machine, macos, modules):
    """Say in one line why this machine cannot hold the environment; None if it can."""
    if not OLDEST <= version < TOO_NEW:
        return (
            "Python %d.%d does not fit: mlops_mini needs 3.11, 3.12 or 3.13; install one and name"
            " it, such as `make PYTHON=python3.12`" % version
        )
    if (system, machine) not in PLATFORMS:
        return (
            "%s on %s does not fit: TensorFlow has wheels for Linux (x86-64, arm64) and macOS"
            " (Apple silicon); on Windows use WSL2" % (system, machine)
        )
    if system == "Darwin" and int(macos.split(".")[0]) < OLDEST_MACOS:
        return "macOS %s does not fit: version 15 or later is needed" % macos
    for module in ("venv", "ensurepip"):
        if module not in modules:
            return (
                "this Python lacks its %s module: install it (Debian, Ubuntu: `apt-get install"
                " python3-venv`) or name another Python, such as `make PYTHON=python3.12`" % module
            )
    return None


def available_modules():
    """Name which of the modules that make an environment can be imported."""
    found = []
    for module in ("venv", "ensurepip"):
        try:
            __import__(module)
        except ImportError:
            continue
        found.append(module)
    return found


def is_ready(folder, stamp):
    """Tell whether the environment was made from this lock and its Python still starts."""
    python = os.path.join(folder, "bin", "python")
    try:
        with open(os.path.join(folder, ".lock-digest"), encoding="ascii") as file:
            fits = file.read() == stamp
        return fits and subprocess.call([python, "-c", ""], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def main():
    """Check, then make the environment if it is missing or older than the lock."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", nargs="?", default=".venv")
    parser.add_argument("--lock", default="requirements.txt")
    arguments = parser.parse_args()
    with open(arguments.lock, "rb") as file:
        stamp = hashlib.sha256(file.read()).hexdigest()
    if is_ready(arguments.folder, stamp):
        return 0
    no = objection(
        sys.version_info[:2],
        platform.system(),
        platform.machine(),
        platform.mac_ver()[0],
        available_modules(),
    )
    if no:
        print("set-up: " + no)
        return 1
    mark = os.path.join(arguments.folder, ".lock-digest")
    if os.path.lexists(arguments.folder):
        is_folder = os.path.isdir(arguments.folder) and not os.path.islink(arguments.folder)
        is_ours = is_folder and (os.path.isfile(mark) or not os.listdir(arguments.folder))
        if not is_ours:
            print(
                "set-up: %s is there, and set-up has not made it: move or remove it, then run make"
                " again" % arguments.folder
            )
            return 1
    print("set-up: making %s from %s (once; some minutes)" % (arguments.folder, arguments.lock))
    sys.stdout.flush()
    if os.path.exists(arguments.folder):
        shutil.rmtree(arguments.folder)
    os.makedirs(arguments.folder)
    with open(mark, "w", encoding="ascii"):
        pass  # the mark comes first: what is made half-way is ours to remove, too
    pip = [os.path.join(arguments.folder, "bin", "python"), "-m", "pip", "-qq"]
    install = [*pip, "install", "--disable-pip-version-check", "-r", arguments.lock]
    commands = [[sys.executable, "-m", "venv", arguments.folder], install]
    if os.path.basename(arguments.lock) == "requirements.txt":
        # Components with other libraries have environments of their own.
        commands.append(
            [os.path.join(arguments.folder, "bin", "mlops-mini"), "pipeline", "prepare"]
        )
    for command in commands:
        status = subprocess.call(command)
        if status:
            print("set-up: `%s` failed; mend what it says and run make again" % " ".join(command))
            return 1
    with open(mark, "w", encoding="ascii") as file:
        file.write(stamp)
    return 0


if __name__ == "__main__":
    sys.exit(main())
