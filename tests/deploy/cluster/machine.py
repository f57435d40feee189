"""What the cluster leaves on the machine while it runs, and how all of it goes again: packages, processes, network."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.layout import layout_from_environment

RUN = Path("/run/isa-cluster")
"""Sockets, pids and what the network was: short paths, and gone after a restart of the machine."""
NODE_LINK, NODE_ADDRESS = "isa-node", "10.200.0.1"
POD_LINK, POD_RANGE, POD_GATEWAY = "isa-pods", "10.244.0.0/16", "10.244.0.1"
SERVICE_RANGE, SERVICE_API, SERVICE_DNS = "10.96.0.0/16", "10.96.0.1", "10.96.0.10"
SOCKET = RUN / "containerd.sock"
PACKAGES = {
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/sbin/conntrack": "conntrack",
    "/usr/sbin/nft": "nftables",
    "/usr/sbin/iptables": "iptables",
    "/usr/sbin/ip": "iproute2",
    "/usr/bin/containerd": "docker.io",
    "/usr/sbin/runc": "docker.io",
    "/usr/sbin/debootstrap": "debootstrap",
    "/usr/bin/git": "git",
}
"""A file -> the Debian package that brings it."""
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
    "fs/inotify/max_user_instances": "8192",
    "fs/inotify/max_user_watches": "1048576",
}


class ClusterError(Exception):
    """The cluster cannot be had or does not do what it should; the message says what."""


def say(text: str) -> None:
    """Progress, with the time of day."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
    sys.stdout.flush()


def state() -> Path:
    """The folder of everything that the cluster stores."""
    return layout_from_environment().cache / "cluster"


def execute(
    command: Sequence[str | Path],
    *,
    given: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 600,
) -> str:
    """Run to the end and return what was printed; ClusterError with the last lines otherwise."""
    done = subprocess.run(
        [str(word) for word in command], input=given, stdin=None if given is not None else subprocess.DEVNULL,
        capture_output=True, env=env, cwd=cwd, timeout=timeout, check=False,
    )  # fmt: skip
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        last = (output + done.stderr.decode(errors="replace")).strip()[-4000:]
        raise ClusterError(f"`{' '.join(map(str, command))}` ended with {done.returncode}:\n{last}")
    return output


def install_packages() -> None:
    """Debian's container runtime, network plugins and tools, when they are not there."""
    if os.geteuid() != 0:
        raise ClusterError("A node needs root: containers, a network of its own. Run `sudo make deploy-test`.")
    missing = sorted({package for path, package in PACKAGES.items() if not Path(path).exists()})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise ClusterError(f"Not installed, and there is no apt-get to install it with: {', '.join(missing)}.")
    say(f"Installing {', '.join(missing)} from Debian.")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    execute(["apt-get", "update", "-qq"], env=env)
    execute(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], env=env, timeout=1200)


@dataclass(frozen=True)
class Process:
    """A program that outlives the command that started it, known by its pid and its start."""

    name: str
    pid: int
    started: str

    @property
    def is_running(self) -> bool:
        return start_of(self.pid) == self.started

    def stop(self, *, within: float = 20) -> None:
        """SIGTERM, then SIGKILL; the pid is only trusted while it is the process that was started."""
        for number, patience in ((signal.SIGTERM, within), (signal.SIGKILL, 5.0)):
            end = time.monotonic() + patience
            while self.is_running and time.monotonic() < end:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)
                time.sleep(0.2)


def start_of(pid: int) -> str:
    """When a process started, in the kernel's words; empty when there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def start(
    name: str, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Start a program in the background, its output in the log of its name."""
    if (known := find(name)) and known.is_running:
        return
    with (logs() / f"{name}.log").open("ab") as output:
        process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, env=env, cwd=cwd,
        )  # fmt: skip
    folder = RUN / "processes"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"pid": process.pid, "started": start_of(process.pid)}))


def find(name: str) -> Process | None:
    """What was started under this name."""
    path = RUN / "processes" / f"{name}.json"
    return Process(name=name, **json.loads(path.read_text())) if path.exists() else None


def running() -> list[Process]:
    """Everything that was started and still runs, the last one first."""
    paths = sorted((RUN / "processes").glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [process for path in paths if (process := find(path.stem)) and process.is_running]


def stop(name: str) -> None:
    """Stop one program, if it runs."""
    if process := find(name):
        process.stop()
        (RUN / "processes" / f"{name}.json").unlink(missing_ok=True)


def logs() -> Path:
    folder = state() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def last_words(name: str, lines: int = 12) -> str:
    """The end of a program's log."""
    path = logs() / f"{name}.log"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def wait_until(what: str, attempt: Any, *, within: float, of: str = "") -> float:
    """Ask until it is true; the seconds that took. A program `of` that has ended ends the wait."""
    began = time.monotonic()
    while True:
        if attempt():
            return time.monotonic() - began
        process = find(of) if of else None
        if process and not process.is_running:
            raise ClusterError(f"{of} has ended:\n{last_words(of)}")
        if time.monotonic() - began > within:
            raise ClusterError(f"{what}: not within {within:.0f} s.\n{last_words(of) if of else ''}")
        time.sleep(0.3)


def prepare_network() -> None:
    """A link that carries the node's address, a route to the services, forwarding; what was is kept for the end."""
    RUN.mkdir(parents=True, exist_ok=True)
    before = RUN / "network-before.json"
    if not before.exists():
        paths = {name: Path("/proc/sys") / name for name in SYSCTLS}
        before.write_text(
            json.dumps(
                {
                    "sysctls": {name: path.read_text().strip() for name, path in paths.items() if path.exists()},
                    "rules": execute(["iptables-save"]),
                }
            )
        )
    for name, value in SYSCTLS.items():
        path = Path("/proc/sys") / name
        if not path.exists():
            execute(["modprobe", "br_netfilter"])
        path.write_text(value)
    if not Path(f"/sys/class/net/{NODE_LINK}").exists():
        execute(["ip", "link", "add", NODE_LINK, "type", "bridge"])
        execute(["ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", NODE_LINK])
        execute(["ip", "link", "set", NODE_LINK, "up"])
        execute(["ip", "route", "add", SERVICE_RANGE, "dev", NODE_LINK, "src", NODE_ADDRESS])


def restore_network() -> None:
    """Links, rules and settings as they were before."""
    before = RUN / "network-before.json"
    for link in (POD_LINK, NODE_LINK):
        if Path(f"/sys/class/net/{link}").exists():
            execute(["ip", "link", "delete", link])
    for family in ("ip", "ip6"):
        with contextlib.suppress(ClusterError):
            execute(["nft", "delete", "table", family, "kube-proxy"])
    if not before.exists():
        return
    was = json.loads(before.read_text())
    rules = was["rules"]
    for table in ("filter", "nat", "mangle"):
        if f"*{table}" not in rules:
            rules += f"*{table}\nCOMMIT\n"
    execute(["iptables-restore"], given=rules.encode())
    for name, value in was["sysctls"].items():
        (Path("/proc/sys") / name).write_text(value)


def kill_shims() -> int:
    """End what containerd of this cluster left behind; its socket's path is on the command line of each shim."""
    mine = [pid for pid, words in command_lines() if str(SOCKET) in words and "shim" in words[0]]
    for pid in mine:
        for child in descendants(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(mine)


def command_lines() -> list[tuple[int, list[str]]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_text().split("\0")
            if words[0]:
                found.append((int(path.parent.name), words))
    return found


def descendants(pid: int) -> list[int]:
    """The processes below one, leaves last."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += [int(word) for word in (task / "children").read_text().split()]
    return [*children, *(below for child in children for below in descendants(child))]


def unmount_all() -> int:
    """Every mount below the cluster's folders, the innermost first; the number of them."""
    roots = (str(RUN), str(state()))
    mounts = [
        point
        for line in Path("/proc/mounts").read_text().splitlines()
        if (point := line.split()[1].encode().decode("unicode_escape")).startswith(roots)
    ]
    for point in reversed(mounts):
        with contextlib.suppress(ClusterError):
            execute(["umount", "--lazy", point])
    return len(mounts)


def remove_network_namespaces() -> None:
    """Those of the pods: files that keep a namespace alive, named by the pods' own sandboxes."""
    listed = RUN / "namespaces.json"
    for path in json.loads(listed.read_text()) if listed.exists() else []:
        with contextlib.suppress(ClusterError, OSError):
            execute(["umount", "--lazy", path])
        Path(path).unlink(missing_ok=True)


def remove_cgroups() -> None:
    """The kubelet's tree, leaves first."""
    for top in Path("/sys/fs/cgroup").glob("**/kubepods"):
        for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
        with contextlib.suppress(OSError):
            top.rmdir()


def remove_log_links() -> None:
    """The kubelet links each container's log here; the logs are gone, so these lead nowhere."""
    folder = Path("/var/log/containers")
    for link in folder.glob("*.log") if folder.exists() else []:
        if link.is_symlink() and not link.exists():
            link.unlink()
