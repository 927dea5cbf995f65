// Asks the server whose address is the argument for images, as each package does, and prints a line of JSON per request.
// Runs in .cache/npm-clients, where scripts/clients installs the packages; see tests/shims/test_clients.py.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [, , address, png, folder] = process.argv;
const require = createRequire(pathToFileURL(`${folder}/package.json`));
const load = (name) => import(pathToFileURL(require.resolve(name)));
globalThis.AI_SDK_LOG_WARNINGS = false;
const { GoogleGenAI } = await load('@google/genai');
const { generateImage, experimental_generateImage, generateText } = await load('ai');
const { createOpenAI } = await load('@ai-sdk/openai');
const { createGoogleGenerativeAI } = await load('@ai-sdk/google');
const { createOpenAICompatible } = await load('@ai-sdk/openai-compatible');
const { default: OpenAI, toFile } = await load('openai');

const picture = fs.readFileSync(png);
const paint = generateImage ?? experimental_generateImage;
const google = new GoogleGenAI({ apiKey: 'any', httpOptions: { baseUrl: address } });
const openai = createOpenAI({ apiKey: 'any', baseURL: `${address}/v1` });
const own = createOpenAICompatible({ name: 'own', apiKey: 'any', baseURL: `${address}/v1` });
const gemini = createGoogleGenerativeAI({ apiKey: 'any', baseURL: `${address}/v1beta` });
const sdk = new OpenAI({ apiKey: 'any', baseURL: `${address}/v1`, maxRetries: 0 });
const flash = 'gemini-2.5-flash-image';
const types = (result) => result.images.map((image) => image.mediaType);
const options = { prompt: 'a cat', size: '64x64', maxRetries: 0 };
const edit = { ...options, prompt: { text: 'a cat', images: [picture, picture] } };
const kinds = (answer) => answer.candidates.map((one) => one.content.parts[0].inlineData.mimeType);
const all = async (stream, read) => {
  const found = [];
  for await (const part of stream) found.push(read(part));
  return found;
};

const requests = {
  'genai list': async () => all(await google.models.list(), (model) => model.name),
  'genai get': async () => (await google.models.get({ model: flash })).name,
  'genai content': async () => kinds(await google.models.generateContent({ model: flash, contents: 'a cat' })),
  'genai stream': async () =>
    all(await google.models.generateContentStream({ model: flash, contents: 'a cat' }), (chunk) => kinds(chunk)[0]),
  'genai edit': async () => {
    const image = { inlineData: { mimeType: 'image/png', data: picture.toString('base64url') } };
    return kinds(await google.models.generateContent({ model: flash, contents: [{ text: 'a cat' }, image] }));
  },
  'genai error': async () => google.models.generateContent({ model: flash, contents: ' ' }),
  'ai gpt-image': async () => types(await paint({ model: openai.image('gpt-image-1'), n: 2, ...options })),
  'ai dall-e': async () => types(await paint({ model: openai.image('dall-e-3'), ...options })),
  'ai edit': async () => types(await paint({ model: openai.image('gpt-image-1'), ...edit })),
  'ai compatible': async () => types(await paint({ model: own.imageModel('Embedded Tiny'), ...options })),
  'ai compatible edit': async () => types(await paint({ model: own.imageModel('Embedded Tiny'), ...edit })),
  'ai imagen': async () =>
    types(await paint({ model: gemini.image('imagen-4.0-generate-001'), prompt: 'a cat', maxRetries: 0 })),
  'ai gemini': async () =>
    (await generateText({ model: gemini(flash), prompt: 'a cat', maxRetries: 0 })).files.map((file) => file.mediaType),
  'ai error': async () => paint({ model: own.imageModel('nonsense'), ...options }),
  'openai url': async () => {
    const made = await sdk.images.generate({ model: 'dall-e-3', prompt: 'a cat', size: '64x64' });
    return (await fetch(made.data[0].url)).headers.get('content-type');
  },
  'openai edit': async () => {
    const image = [await toFile(picture, 'a.png', { type: 'image/png' }), await toFile(picture, 'b.png', { type: 'image/png' })];
    const wish = { model: 'gpt-image-1', image, prompt: 'a cat', size: '64x64', background: 'transparent' };
    return (await sdk.images.edit(wish)).warnings.length;
  },
  'openai stream': async () =>
    all(await sdk.images.generate({ prompt: 'a cat', size: '64x64', stream: true }), (event) => event.type),
};

for (const [name, ask] of Object.entries(requests)) {
  let result;
  try {
    result = await ask();
  } catch (error) {
    result = `${error.name} ${error.status ?? error.statusCode}: ${error.message}`;
  }
  console.log(JSON.stringify([name, result]));
}
