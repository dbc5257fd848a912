// node round_trip.mjs WRITTEN SUITE CASE…: runs each case's model as written into WRITTEN by `paramill conformance --write`
// in ONNX Runtime on the case's inputs and prints "CASE<tab>VERDICT<tab>why". Verdicts:
//   equal     its outputs are ours: |a - b| <= 1e-5 (1 + |b|), integers the same
//   itself    they are not, but they are those that it gives for the original model: the runtime's own ways
//   refused   it refuses the original model as well
//   DIFFERENT, REFUSED  neither: the written model is at fault
import fs from 'node:fs';
import ort from 'onnxruntime-node';

const arrays = {
  float32: Float32Array, uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array, int32: Int32Array,
  int64: BigInt64Array, bool: Uint8Array, float16: Uint16Array, float64: Float64Array, uint32: Uint32Array, uint64: BigUint64Array,
  bfloat16: Uint16Array,
};
const [written, suite, ...cases] = process.argv.slice(2);

function read(folder, tensor) {
  const bytes = fs.readFileSync(`${folder}/${tensor.file}`);
  const data = new arrays[tensor.type](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  return { ...tensor, data };
}

async function run(model, inputs) {
  const session = await ort.InferenceSession.create(model, { logSeverityLevel: 4, intraOpNumThreads: 1 });
  const feeds = {};
  session.inputNames.forEach((name, i) => {
    feeds[name] = new ort.Tensor(inputs[i].type, inputs[i].data, inputs[i].shape);
  });
  const results = await session.run(feeds);
  return session.outputNames.map((name) => results[name]);
}

const half = (bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
};

function difference(a, b, type) {
  const number = type === 'float16' ? half : Number;
  if (a.length !== b.length) return `${a.length} elements instead of ${b.length}`;
  for (let i = 0; i < a.length; i++) {
    const x = number(a[i]), y = number(b[i]);
    const same = type.startsWith('float') ? Object.is(x, y) || x === y || Math.abs(x - y) <= 1e-5 * (1 + Math.abs(y)) : a[i] === b[i];
    if (!same) return `element ${i}: ${x} instead of ${y}`;
  }
  return '';
}

function compare(outputs, wanted) {
  for (const [i, w] of wanted.entries()) {
    const why = difference(outputs[i].data, w.data, w.type);
    if (why) return `output ${i}: ${why}`;
  }
  return '';
}

const first = (error) => String(error.message ?? error).split('\n')[0].slice(0, 200);
for (const name of cases) {
  const folder = `${written}/${name}`;
  const { inputs, outputs } = JSON.parse(fs.readFileSync(`${folder}/tensors.json`));
  const given = inputs.map((t) => read(folder, t)), wanted = outputs.map((t) => read(folder, t));
  const say = (verdict, why) => console.log(`${name}\t${verdict}\t${why}`);
  let ours, original, refusal;
  try {
    ours = await run(`${folder}/model.onnx`, given);
  } catch (error) {
    refusal = first(error);
  }
  const why = ours ? compare(ours, wanted) : refusal;
  if (ours && !why) {
    say('equal', '');
    continue;
  }
  try {
    original = await run(`${suite}/${name}/model.onnx`, given);
  } catch (error) {
    say(ours ? 'DIFFERENT' : 'refused', ours ? why : first(error));
    continue;
  }
  const itself = ours && !compare(ours, original.map((t, i) => ({ data: t.data, type: wanted[i].type })));
  say(itself ? 'itself' : ours ? 'DIFFERENT' : 'REFUSED', why);
}
