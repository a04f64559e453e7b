"""What a system takes over from the machine it is made on, so that it reaches the same mirrors and indexes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

APT_SOURCES = ("etc/apt/sources.list", "etc/apt/sources.list.d")
DEBIAN_MIRROR = re.compile(r"\bhttps?://\S+/debian(?=/?(\s|$))")
APT_SETTINGS = re.compile(r"Acquire::(https?::|Check-|Retries|ForceIPv)")
COPIED = (
    "etc/resolv.conf",
    "etc/hosts",
    "etc/pip.conf",
    "etc/xdg/pip",
    "etc/ssl/certs/ca-certificates.crt",
    "usr/local/share/ca-certificates",
)
PASSED_ON = re.compile(r"(PIP_|UV_)\w+|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|\w+_(proxy|PROXY)")


def mirror() -> str | None:
    """Find the Debian mirror in this machine's apt sources."""
    for path in (Path("/") / each for each in APT_SOURCES):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            lines = file.read_text().splitlines() if file.is_file() else []
            for line in lines:
                if not line.lstrip().startswith("#") and (found := DEBIAN_MIRROR.search(line)):
                    return found[0]
    return None


def copy_configuration(root: Path) -> None:
    """Give a system this machine's name resolution, certificates, and settings of pip and apt."""
    for each in COPIED:
        source, target = Path("/") / each, root / each
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copyfile(source, target)
    (root / "etc/apt/apt.conf.d/99host").write_text(_apt_settings())


def _apt_settings() -> str:
    if shutil.which("apt-config") is None:
        return ""
    dumped = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True).stdout
    return "".join(f"{line}\n" for line in dumped.splitlines() if APT_SETTINGS.match(line))


def environment(root: Path) -> dict[str, str]:
    """Give the variables that name certificates, proxies and indexes, without those that name a file the system does not have."""
    passed_on = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    return {name: value for name, value in passed_on.items() if not value.startswith("/") or (root / value[1:]).exists()}
