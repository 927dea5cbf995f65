#!/usr/bin/env bash
# Generate an image from a prompt with curl and python3 only:  scripts/curl-example.sh "PROMPT" OUT.png [SEED]
set -euo pipefail
prompt="${1:-a red circle on a blue background}" out="${2:-image.png}" seed="${3:-1}"
url="${INVOKECLONE_URL:-http://127.0.0.1:9090}"
here="$(dirname "${BASH_SOURCE[0]}")"

model=$(curl -fsS "$url/api/v2/models/?model_type=main&base_models=sd-1")
batch=$(MODEL="$model" PROMPT="$prompt" SEED="$seed" python3 -c '
import json, os, sys
model = json.loads(os.environ["MODEL"])["models"][0]
batch = json.load(open(sys.argv[1]))
nodes = batch["batch"]["graph"]["nodes"]
nodes["sd1_model_loader"]["model"] = {name: model[name] for name in ("key", "hash", "name", "base", "type")}
defaults = model.get("default_settings") or {}
nodes["noise"].update(width=defaults.get("width") or 512, height=defaults.get("height") or 512)
nodes["denoise_latents"].update(steps=defaults.get("steps") or 20, cfg_scale=defaults.get("cfg_scale") or 7.5)
nodes["core_metadata"].update(model=nodes["sd1_model_loader"]["model"], width=nodes["noise"]["width"], height=nodes["noise"]["height"],
                              steps=nodes["denoise_latents"]["steps"], cfg_scale=nodes["denoise_latents"]["cfg_scale"])
batch["batch"]["data"] = [[{"node_path": "seed", "field_name": "value", "items": [int(os.environ["SEED"])]}],
                          [{"node_path": "positive_prompt", "field_name": "value", "items": [os.environ["PROMPT"]]}]]
print(json.dumps(batch))' "$here/../tests/whole/text_to_image.json")
item=$(curl -fsS "$url/api/v1/queue/default/enqueue_batch" -H 'content-type: application/json' -d "$batch" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["item_ids"][0])')
while :; do
    response=$(curl -fsS "$url/api/v1/queue/default/i/$item")
    state=$(RESPONSE="$response" python3 -c '
import json, os
item = json.loads(os.environ["RESPONSE"])
session = item["session"]
print(item["status"], *(session["results"][node]["image"]["image_name"] for node in session.get("source_prepared_mapping", {}).get("canvas_output", []) if item["status"] == "completed"), item.get("error_message") or "")')
    case "$state" in
        completed*) break ;;
        failed* | canceled*) echo "$state" >&2; exit 1 ;;
        *) sleep 0.3 ;;
    esac
done
name=$(echo "$state" | cut -d' ' -f2)
curl -fsS "$url/api/v1/images/i/$name/full" -o "$out"
echo "$out"
