"""Two local Ray nodes, driven by lines on stdin.

`add` and `kill` the second node, `session` for the folder of logs, `actors` for what Ray tells of its actors.
"""

import json
import sys

import ray
import ray._private.state
from ray.cluster_utils import Cluster

NODE = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 80_000_000}


def answer(text: str) -> None:
    sys.stdout.write(f"answer {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    second = cluster.add_node(**NODE)
    answer(cluster.address)
    for line in sys.stdin:
        match line.strip():
            case "kill":
                second.kill_raylet()
                answer("killed")
            case "add":
                second = cluster.add_node(**NODE)
                answer("added")
            case "session":
                answer(cluster.head_node.get_session_dir_path())
            case "actors":
                ray.init(address=cluster.address, logging_level="ERROR")
                answer(json.dumps(str(ray._private.state.actors())))
                ray.shutdown()
    cluster.shutdown()
