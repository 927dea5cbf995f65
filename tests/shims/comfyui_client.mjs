// Calls every public method of @stable-canvas/comfyui-client that works without node packs; prints what they return as JSON.
// Arguments: the folder with node_modules, the server's address (host:port), the path of the API (empty or /api).
import { createRequire } from "node:module";

const [folder, address, base] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const library = require("@stable-canvas/comfyui-client");
const { BasePipe, Client, Workflow } = library;
const WebSocket = require("ws");

const client = new Client({ api_host: address, api_base: base, WebSocket });
const seen = { events: {}, previews: 0 };
for (const kind of ["status", "executing", "executed", "progress", "execution_start", "execution_cached", "execution_success", "execution_interrupted", "b_preview"]) {
  client.on(kind, () => (seen.events[kind] = (seen.events[kind] ?? 0) + 1));
}
client.on("unhandled", (message) => console.error("unhandled", message));
await client.connect();

const MODEL = "Embedded Tiny";
const define = (output, { steps = 6, batch_size = 1 } = {}) => {
  const workflow = new Workflow();
  const { KSampler, CheckpointLoaderSimple, EmptyLatentImage, CLIPTextEncode, VAEDecode, [output]: Output } = workflow.classes;
  const [model, clip, vae] = CheckpointLoaderSimple({ ckpt_name: MODEL });
  const encode = (text) => CLIPTextEncode({ text, clip })[0];
  const [latent_image] = EmptyLatentImage({ width: 64, height: 64, batch_size });
  const run = { seed: Math.floor(Math.random() * 2 ** 32), steps, cfg: 4, sampler_name: "dpmpp_2m_sde_gpu", scheduler: "karras", denoise: 1 };
  const [samples] = KSampler({ ...run, model, positive: encode("a red circle"), negative: encode(""), latent_image });
  const [images] = VAEDecode({ samples, vae });
  Output(output === "SaveImage" ? { images, filename_prefix: "x" } : { images });
  return workflow;
};
const load = async (images) =>
  Promise.all(
    images.map(async ({ type, data }) => {
      const bytes = type === "url" ? await (await fetch(data)).arrayBuffer() : data;
      return { type, url: type === "url" ? data : null, bytes: Buffer.from(bytes).toString("base64") };
    }),
  );
const attempt = async (call) => {
  try {
    return await call();
  } catch (error) {
    const [name] = Object.entries(library).find(([, value]) => value === error.constructor) ?? ["?"];
    return { error: name, message: error.message };
  }
};
const text = (response) => response.text();

const result = {
  lists: {
    extensions: await client.getExtensions(),
    embeddings: await client.getEmbeddings(),
    nodes: Object.keys(await client.getNodeDefs()),
    samplers: await client.getSamplers(),
    schedulers: await client.getSchedulers(),
    models: await client.getSDModels(),
    controlnets: await client.getCNetModels(),
    upscalers: await client.getUpscaleModels(),
    hypernetworks: await client.getHyperNetworks(),
    loras: await client.getLoRAs(),
    vaes: await client.getVAEs(),
    folders: await client.getModelFolders(),
    checkpoints: await client.getModels("checkpoints"),
    metadata: await client.viewMetadata("checkpoints", MODEL),
    stats: await client.getSystemStats(),
  },
  user: {
    users: await client.getUserConfig(),
    create: await attempt(() => client.createUser("x")),
    stored: [(await client.storeSettings({ a: 1, b: { c: null } })).status, (await client.storeSetting("d/e", [true])).status],
    settings: await client.getSettings(),
    setting: await client.getSetting("d/e"),
    data: await (async () => {
      await client.storeUserData("workflows/my flow.json", { nodes: [] }, { stringify: true, body: '{"nodes":[]}' });
      return text(await client.getUserData("workflows/my flow.json"));
    })(),
    missing: await attempt(() => client.getUserData("absent")),
  },
};

const saved = await define("SaveImage", { batch_size: 2 }).invoke(client, { progress: (step) => (seen.progress = step) });
result.saved = await load(saved.images);
result.sent = await load((await define("SaveImageWebsocket", { batch_size: 2 }).invoke(client)).images);
result.previewed = await load((await define("PreviewImage").invoke_polling(client, { polling_ms: 100 })).images);
const prompt = define("SaveImage").workflow();
result.enqueued = await load((await client.enqueue(prompt.prompt, { workflow: { id: "a-workflow" } })).images);
result.polled = await load((await client.runPrompt(prompt.prompt, { polling_ms: 100 })).images);
const pipe = new BasePipe().with(client).model(MODEL).prompt("a red circle").size(64, 64).steps(4).cfg(4).seed(3);
result.pipe = (await pipe.save().wait()).images.map((image) => ({ ...image, data: image.data.byteLength }));

const slow = define("SaveImage", { steps: 10000 });
const running = slow.instance(client);
await running.enqueue();
const started = new Promise((resolve) => running.on_start(resolve));
const waiting = running.wait();
await started;
const pending = slow.instance(client);
await pending.enqueue();
result.queue = await client.getQueue();
result.status = [await running.query(), await pending.query()];
await pending.interrupt();
await running.interrupt();
result.interrupted = await attempt(() => waiting);
await client.waitForPrompt(pending.task_id, 100);
result.refused = await attempt(() => client.enqueue({ 1: { class_type: "Unknown", inputs: {} } }));
const { History } = await client.getHistory(10, { offset: 0 });
result.history = History.length;
await client.deleteItem("history", History[0].prompt[1]);
await client.clearItems("queue");
result.left = (await client.getItems("history")).History.length;
await client.free({ unload_models: true });
result.events = seen;
client.close();
process.stdout.write(JSON.stringify(result), () => process.exit(0));
