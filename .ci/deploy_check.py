"""What .ci/deploy takes out of deploy/: the unit's system calls as a filter, and Orthanc's settings of the compose file."""

import errno
import json
import mmap
import re
import socket
import subprocess
import sys


def members(group):
    """The system calls of one of systemd's groups, as it lists them itself."""
    text = subprocess.run(["systemd-analyze", "syscall-filter", group], check=True, capture_output=True, text=True).stdout
    names = [line.strip() for line in text.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    calls = set()
    for name in names:
        calls |= members(name) if name.startswith("@") else {name}
    return calls


def write_filter(unit, out):
    """A program for seccomp: SystemCallFilter, MemoryDenyWriteExecute and RestrictAddressFamilies, as systemd.exec(5) has them."""
    import seccomp

    settings = re.findall(r"^(\w+)=(.+)$", open(unit, encoding="utf-8").read(), re.M)
    # systemd lets these pass whatever a unit lists.
    allowed = members("@default")
    for value in (value for key, value in settings if key == "SystemCallFilter"):
        for word in value.removeprefix("~").split():
            calls = members(word) if word.startswith("@") else {word}
            allowed = allowed - calls if value.startswith("~") else allowed | calls
    fixed = dict(settings)
    assert fixed["MemoryDenyWriteExecute"] == "yes" and fixed["SystemCallErrorNumber"] == "EPERM", "the unit's own filter"
    families = [getattr(socket, name) for name in fixed["RestrictAddressFamilies"].split()]
    assert "ptrace" not in allowed and "openat" in allowed, "no filter at all"

    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))

    def argument(position, mask, value):
        return seccomp.Arg(position, seccomp.MASKED_EQ, mask, value)

    written, code = mmap.PROT_WRITE, mmap.PROT_EXEC
    for call in sorted(allowed):
        if call == "mmap":
            for kind in (0, written, code):
                rules.add_rule(seccomp.ALLOW, call, argument(2, written | code, kind))
        elif call in ("mprotect", "pkey_mprotect"):
            rules.add_rule(seccomp.ALLOW, call, argument(2, code, 0))
        elif call == "shmat":
            rules.add_rule(seccomp.ALLOW, call, argument(2, 0o100000, 0))
        elif call == "socket":
            for family in families:
                rules.add_rule(seccomp.ALLOW, call, seccomp.Arg(0, seccomp.EQ, int(family)))
        else:
            try:
                rules.add_rule(seccomp.ALLOW, call)
            except RuntimeError:
                pass  # newer than this libseccomp: stays forbidden
    with open(out, "wb") as file:
        rules.export_bpf(file)


def orthanc_settings(compose, storage):
    """ORTHANC__DICOM_AET is DicomAet, by the rule of the image's documentation; what follows is text or JSON."""
    from ruamel.yaml import YAML

    environment = YAML(typ="safe").load(open(compose, encoding="utf-8"))["services"]["orthanc"]["environment"]
    settings = {"StorageDirectory": storage, "IndexDirectory": storage}
    for name, value in environment.items():
        if not name.startswith("ORTHANC__"):
            continue
        key = "".join(word.capitalize() for word in name.removeprefix("ORTHANC__").split("_"))
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    assert settings["DicomAet"] == "ORTHANC", settings
    print(json.dumps(settings, indent=2))


{"filter": write_filter, "orthanc": orthanc_settings}[sys.argv[1]](*sys.argv[2:])
