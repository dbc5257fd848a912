// node onnxruntime.mjs MODEL.onnx INPUT.f32 OUTPUT.f32 TOLERANCE: runs the rows of INPUT through ONNX Runtime, together
// and one by one, and compares with OUTPUT. A difference is |a - b| / (1 + |b|).
import fs from 'node:fs';
import ort from 'onnxruntime-node';

const [model, inputPath, outputPath, tolerance] = process.argv.slice(2);
const floats = (path) => {
  const bytes = fs.readFileSync(path);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
};
const session = await ort.InferenceSession.create(model);
const [inputName] = session.inputNames;
const [outputName] = session.outputNames;
const expected = floats(outputPath), input = floats(inputPath);
const shape = session.inputMetadata[0].shape.slice(1);
const rowSize = shape.reduce((a, b) => a * b, 1), rows = input.length / rowSize, outputs = expected.length / rows;
let worst = 0;
const compare = (data, first) => {
  if (data.length % outputs !== 0) throw new Error(`${data.length} outputs, not rows of ${outputs}`);
  data.forEach((value, i) => {
    const b = expected[first * outputs + i];
    const d = Math.abs(value - b) / (1 + Math.abs(b));
    worst = d <= worst ? worst : d; // NaN stays
  });
};
const run = async (first, count) => {
  const tensor = new ort.Tensor('float32', input.slice(first * rowSize, (first + count) * rowSize), [count, ...shape]);
  compare((await session.run({ [inputName]: tensor }))[outputName].data, first);
};
await run(0, rows);
for (let r = 0; r < Math.min(rows, 8); r++) await run(r, 1);
console.log(`${rows} rows, ${outputs} outputs a row: largest difference ${worst.toExponential(2)}`);
process.exit(worst <= Number(tolerance) ? 0 : 1);
