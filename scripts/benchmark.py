"""Measure the claims of README and CHANGELOG: startup, memory, cost of a generation, response times under load.

Usage: .venv/bin/python scripts/benchmark.py [--only start,generation,load,queue,dialects,lora,health,growth,
denoising,switches,loading] [--out FILE.json], or .venv/bin/python scripts/benchmark.py --against DIR [--groups
misc,queue,gallery,gen] [--rows NAME,…] [--times N]

A server is started on a scratch root, with one torch thread except for the wall time of an image. CPU seconds are those
of the named processes, as reported by the operating system: unlike wall times, they hardly depend on other load on the
machine. Ratios are computed within one run.
"""

import argparse
import contextlib
import io
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
BATCH = ROOT / "tests" / "whole" / "text_to_image.json"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Running:
    """A server on a scratch root, with its CPU time and memory."""

    def __init__(self, folder: Path, threads: dict[str, str] = ONE_THREAD, checkout: Path = ROOT) -> None:
        self.root = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
        command = [sys.executable, "-m", "invokeclone", "serve", "--root", str(folder), "--port", str(port)]
        environment = os.environ | threads | {"INVOKEAI_DEVICE": "cpu", "INVOKEAI_PRECISION": "float32"}
        environment["PYTHONPATH"] = str(checkout)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.log = (folder.parent / "server.log").open("wb")
        self.process = psutil.Popen(command, env=environment, cwd=checkout, stdout=self.log, stderr=self.log)

    def wait(self, condition: Callable[[], Any]) -> Any:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if result := condition():
                    return result
            if self.process.poll() is not None:
                raise SystemExit("the server ended by itself; see its log")
            time.sleep(0.02)

    def answers(self) -> bool:
        return self.client.get("/api/v1/app/version").status_code == 200

    def cpu(self, whole_tree: bool = True) -> float:
        """Return the CPU seconds so far of the server, and of its workers if `whole_tree`."""
        processes = [psutil.Process(self.process.pid)]
        if whole_tree:
            processes += processes[0].children(recursive=True)
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    def memory(self) -> float:
        """Return the resident memory of the server process in MiB."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


@contextlib.contextmanager
def server(threads: dict[str, str] = ONE_THREAD) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        running = Running(Path(folder) / "root", threads)
        try:
            running.wait(running.answers)
            yield running
        finally:
            running.stop()


def batch(running: Running, width: int, steps: int, seeds: list[int]) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(BATCH.read_text())
    models = running.wait(lambda: running.client.get("/api/v2/models/").json()["models"])
    model = {name: models[0][name] for name in ("key", "hash", "name", "base", "type")}
    nodes = body["batch"]["graph"]["nodes"]
    nodes["sd1_model_loader"]["model"] = nodes["core_metadata"]["model"] = model
    nodes["noise"].update(width=width, height=width)
    nodes["denoise_latents"].update(steps=steps)
    prompts = [f"a cat, number {seed}" for seed in seeds]  # no prompt is encoded twice, as in `direct`
    body["batch"]["data"] = [
        [
            {"node_path": "seed", "field_name": "value", "items": seeds},
            {"node_path": "positive_prompt", "field_name": "value", "items": prompts},
        ]
    ]
    return body


def run(running: Running, body: dict[str, Any]) -> None:
    """Enqueue and wait until nothing is pending; waiting costs one small request every 100 ms."""
    running.client.post("/api/v1/queue/default/enqueue_batch", json=body).raise_for_status()

    def idle() -> bool:
        time.sleep(0.1)
        status = running.client.get("/api/v1/queue/default/status").json()["queue"]
        return status["pending"] + status["in_progress"] == 0

    running.wait(idle)


def measure_start() -> dict[str, float]:
    """Return CPU and memory of the server process at its first response, and memory after an image."""
    with server() as running:
        first = running.cpu(whole_tree=False)
        before = running.memory()
        run(running, batch(running, 128, 4, [1]))
        return {"first_answer_cpu_s": first, "resident_mib": before, "resident_after_a_picture_mib": running.memory()}


def measure_generation() -> dict[str, float]:
    """Measure one step at 64x64 through the whole server, against the same diffusers pipeline called directly."""
    count = 40
    with server() as running:
        run(running, batch(running, 64, 1, [1, 2, 3]))
        before = running.cpu()
        run(running, batch(running, 64, 1, list(range(100, 100 + count))))
        item_cpu = (running.cpu() - before) / count
    with server(threads={}) as running:
        pictures = {width: item_seconds(running, width, list(range(500, 511))) for width in (128, 256)}
    direct = subprocess.run(
        [sys.executable, __file__, "--direct", str(count)], env=os.environ | ONE_THREAD, check=True, capture_output=True
    )
    pipeline = json.loads(direct.stdout.splitlines()[-1])
    return {
        "item_cpu_ms": 1000 * item_cpu,
        "direct_cpu_ms": 1000 * pipeline["step"],
        "ratio": item_cpu / pipeline["step"],
        "picture_128_20_steps_wall_s": pictures[128],
        "picture_256_20_steps_wall_s": pictures[256],
        "direct_128_20_steps_wall_s": pipeline["picture"],
    }


def item_seconds(running: Running, width: int, seeds: list[int]) -> float:
    """Return the median duration of an item of 20 steps in seconds."""
    run(running, batch(running, width, 20, [5]))
    run(running, batch(running, width, 20, seeds))
    items = running.client.get("/api/v1/queue/default/list_all").json()[-len(seeds) :]
    moments = [[datetime.fromisoformat(item[name]) for name in ("started_at", "completed_at")] for item in items]
    return statistics.median((end - start).total_seconds() for start, end in moments)


def direct(count: int) -> dict[str, float]:
    """Time the embedded model in a plain diffusers pipeline, in this process."""
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

    folder = ROOT / "invokeclone" / "families" / "stable_diffusion" / "embedded" / "model"
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)

    def picture(size: int, steps: int, seed: int) -> None:
        """Generate an image of a new prompt and save it as a PNG, as an item does."""
        generator = torch.Generator().manual_seed(seed)
        shape = {"width": size, "height": size, "num_inference_steps": steps}
        image = pipeline(f"a cat, number {seed}", generator=generator, **shape).images[0]
        image.save(io.BytesIO(), "PNG", compress_level=1)

    for seed in range(3):
        picture(64, 1, seed)
    before = time.process_time()
    for seed in range(count):
        picture(64, 1, seed)
    step = (time.process_time() - before) / count
    picture(128, 20, 0)
    started = time.perf_counter()
    for seed in range(5):
        picture(128, 20, seed)
    return {"step": step, "picture": (time.perf_counter() - started) / 5}


def p95(running: Running, seconds: float) -> tuple[float, int]:
    """Return the 95th percentile in ms of sequential `GET app/version` requests, one every 10 ms, and their number."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        running.answers()
        times.append(1000 * (time.perf_counter() - started))
        time.sleep(0.01)
    return statistics.quantiles(times, n=20)[-1], len(times)


def measure_load() -> dict[str, float]:
    """Measure `GET app/version` while idle and while a long item runs."""
    with server() as running:
        run(running, batch(running, 128, 2, [1]))
        idle, _ = p95(running, 5)
        body = batch(running, 128, 20, list(range(1, 200)))
        threading.Thread(target=lambda: running.client.post("/api/v1/queue/default/enqueue_batch", json=body)).start()
        time.sleep(1)
        busy, _ = p95(running, 10)
        running.client.put("/api/v1/queue/default/clear")
        return {"idle_p95_ms": idle, "running_p95_ms": busy, "ratio": busy / idle}


def measure_queue() -> dict[str, float]:
    """Measure the server's CPU per request of the queue's routes, with up to 10,000 pending items."""
    with server() as running:
        body = batch(running, 64, 1, list(range(1000)))
        running.client.put("/api/v1/queue/default/processor/pause").raise_for_status()
        result = {}

        def cost(name: str, times: int, request: Callable[[], httpx.Response]) -> httpx.Response:
            before = running.cpu(whole_tree=False)
            for _ in range(times):
                answer = request()
                answer.raise_for_status()
            result[f"{name}_cpu_ms"] = 1000 * (running.cpu(whole_tree=False) - before) / times
            return answer

        get, put, post = running.client.get, running.client.put, running.client.post
        queue = "/api/v1/queue/default"
        post(f"{queue}/enqueue_batch", json=body).raise_for_status()
        ids = cost("enqueue_1000", 9, lambda: post(f"{queue}/enqueue_batch", json=body)).json()["item_ids"]
        get("/openapi.json").raise_for_status()  # built once, at whatever cost
        cost("status", 50, lambda: get(f"{queue}/status"))
        cost("list_all_10000", 2, lambda: get(f"{queue}/list_all"))
        cost("item_ids", 30, lambda: get(f"{queue}/item_ids"))
        cost("items_by_ids_50", 20, lambda: post(f"{queue}/items_by_ids", json={"item_ids": ids[:50]}))
        cost("item", 50, lambda: get(f"{queue}/i/{ids[0]}"))
        cancel = iter(ids)
        cost("cancel", 20, lambda: put(f"{queue}/i/{next(cancel)}/cancel"))
        cost("clear_10000", 1, lambda: put(f"{queue}/clear"))
        cost("version", 200, lambda: get("/api/v1/app/version"))
        cost("openapi", 20, lambda: get("/openapi.json"))
        return result


def measure_compatibility_apis(count: int = 40) -> dict[str, float]:
    """Measure the server's CPU per image requested through a compatibility API.

    It is compared with the same batch by `enqueue_batch`, followed by a request for the file. The end of an item is
    read from the database itself, so that waiting costs the server nothing.
    """
    with server() as running:
        run(running, batch(running, 64, 1, [1, 2]))
        database = sqlite3.connect(next(Path(running.root).rglob("*.db")))
        posts = {
            "openai_64_1_step": ("/v1/images/generations", {"prompt": "a cat", "size": "64x64", "steps": 1}),
            "gemini_128_20_steps": (
                "/v1beta/models/gemini:generateContent",
                {"contents": [{"parts": [{"text": "a cat"}]}]},
            ),
            "a1111_64_1_step": ("/sdapi/v1/txt2img", {"prompt": "a cat", "width": 64, "height": 64, "steps": 1}),
        }

        def own(width: int, steps: int) -> Callable[[int], None]:
            body = batch(running, width, steps, [0])

            def ask(seed: int) -> None:
                body["batch"]["data"][0][0]["items"] = [seed]
                running.client.post("/api/v1/queue/default/enqueue_batch", json=body).raise_for_status()
                while database.execute("SELECT count(*) FROM session_queue WHERE completed_at IS NULL").fetchone()[0]:
                    time.sleep(0.005)
                (name,) = database.execute("SELECT image_name FROM images ORDER BY created_at DESC").fetchone()
                running.client.get(f"/api/v1/images/i/{name}/full").raise_for_status()

            return ask

        def cost(ask: Callable[[int], Any]) -> float:
            for seed in range(3):
                ask(seed)
            before = running.cpu(whole_tree=False)
            for seed in range(count):
                ask(1000 + seed)
            return 1000 * (running.cpu(whole_tree=False) - before) / count

        result = {"own_64_1_step_cpu_ms": cost(own(64, 1)), "own_128_20_steps_cpu_ms": cost(own(128, 20))}
        for name, (path, body) in posts.items():
            spent = cost(lambda _, path=path, body=body: running.client.post(path, json=body).raise_for_status())
            result[f"{name}_cpu_ms"] = spent
        database.close()
        return result


def measure_lora(rank: int = 32, tokens: int = 512, calls: int = 3) -> dict[str, float]:
    """Measure a LoRA on one transformer block of SDXL's deepest level: its cost per call, and of merging it.

    Runs on the GPU if there is one (weights are merged there; wall time), else on the CPU (parallel branch; CPU
    time).
    """
    import torch
    from diffusers.models.attention import BasicTransformerBlock

    from invokeclone.engine.lora import apply
    from invokeclone.engine.lora.layers import LoRA

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    block = (
        BasicTransformerBlock(1280, 20, 64, cross_attention_dim=2048, activation_fn="geglu").to(device, dtype).eval()
    )
    linear = {n.replace(".", "_"): m for n, m in block.named_modules() if isinstance(m, torch.nn.Linear)}
    matrices = {
        name: LoRA(torch.randn(module.out_features, rank), torch.randn(rank, module.in_features), None, 0.001)
        for name, module in linear.items()
    }
    lora = apply.LoRAPatch("rank", matrices, 1.0)
    states, text = (torch.randn(2, *shape, device=device, dtype=dtype) for shape in ((tokens, 1280), (77, 2048)))

    def median_ms(work: Callable[[], Any], count: int = calls) -> float:
        work()
        times = []
        for _ in range(count):
            started = clock()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(1000 * (clock() - started))
        return statistics.median(times)

    def apply_and_remove() -> None:
        with apply.apply_loras(block, [lora], device):
            pass

    def call() -> None:
        with torch.inference_mode():
            block(states, encoder_hidden_states=text)

    plain = median_ms(call)
    with apply.apply_loras(block, [lora], device):
        with_lora = median_ms(call)
    result = {"block_ms": plain, "block_with_lora_ms": with_lora, "ratio": with_lora / plain}
    result["put_on_ms"] = median_ms(apply_and_remove)
    if device.type == "cpu":  # as if the weights were on a device
        apply._is_on_device = lambda _weight: True
        result["merge_on_cpu_ms"] = median_ms(apply_and_remove)
    return result


def measure_health() -> dict[str, float]:
    """Measure `/health` while the largest accepted requests are processed."""
    import benchmark_health

    with server() as running:
        return benchmark_health.measure(running)


def measure_growth() -> dict[str, float]:
    """Measure the cost of an item in queues of 100, 10,000 and 100,000 items."""
    import benchmark_growth

    with server(ONE_THREAD | benchmark_growth.QUEUE_LIMIT) as running:
        return benchmark_growth.measure(running)


def measure_denoising() -> dict[str, float]:
    """Measure the denoising of each family against diffusers' pipelines."""
    import benchmark_denoising

    return benchmark_denoising.compare()


def measure_switches() -> dict[str, float]:
    """Measure fused projections, channels last, and optional settings."""
    import benchmark_switches

    return benchmark_switches.switches() | benchmark_switches.options()


def measure_loading() -> dict[str, float]:
    """Measure loading, memory and steps of large FLUX.1 files in several number formats."""
    import benchmark_loading

    return benchmark_loading.measure_loading()


MEASURES: dict[str, Callable[[], dict[str, float]]] = {
    "start": measure_start,
    "generation": measure_generation,
    "load": measure_load,
    "queue": measure_queue,
    "dialects": measure_compatibility_apis,
    "lora": measure_lora,
    "health": measure_health,
    "growth": measure_growth,
    "denoising": measure_denoising,
    "switches": measure_switches,
    "loading": measure_loading,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(MEASURES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--direct", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--against", type=Path, metavar="DIR", help="compare CPU per request with another checkout")
    parser.add_argument("--groups", default="misc,queue,gallery,gen", help="groups of rows to compare")
    parser.add_argument("--rows", default="", help="only rows whose names contain one of these words")
    parser.add_argument("--times", type=int, default=40, help="number of requests of a light row")
    options = parser.parse_args()
    if options.against:
        import benchmark_against

        rows = [row for row in options.rows.split(",") if row]
        benchmark_against.compare(options.against.resolve(), options.groups.split(","), rows, options.times)
        return
    if options.direct:
        print(json.dumps(direct(options.direct)))
        return
    results = {}
    for name in options.only.split(","):
        results[name] = MEASURES[name]()
        for key, value in results[name].items():
            print(f"{name:12} {key:32} {value:10.2f}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
