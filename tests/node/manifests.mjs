// node manifests.mjs FILE.yaml…: every object has a known apiVersion and kind, and only fields that its schema knows, of the
// schema's types. The schema is that of the Kubernetes client's generated classes.
import fs from 'node:fs';
import * as kubernetes from '@kubernetes/client-node';
import yaml from 'js-yaml';

const scalars = { string: 'string', number: 'number', boolean: 'boolean', Date: 'string' };

function* faults(value, type, path) {
  if (value === null || value === undefined) return;
  const list = type.match(/^Array<(.+)>$/);
  const map = type.match(/^\{ \[key: string\]: (.+); \}$/);
  if (list) {
    if (!Array.isArray(value)) yield `${path} is no list`;
    else for (const [i, item] of value.entries()) yield* faults(item, list[1], `${path}[${i}]`);
  } else if (map) {
    if (typeof value !== 'object' || Array.isArray(value)) yield `${path} is no map`;
    else for (const [key, item] of Object.entries(value)) yield* faults(item, map[1], `${path}.${key}`);
  } else if (type in scalars) {
    if (typeof value !== scalars[type]) yield `${path} is a ${typeof value}, not a ${type}`;
  } else if (type === 'IntOrString') {
    if (!['number', 'string'].includes(typeof value)) yield `${path} is neither number nor string`;
  } else if (type !== 'any' && type !== 'object') {
    const schema = kubernetes[type];
    if (!schema?.getAttributeTypeMap) yield `${path}: the schema has no ${type}`;
    else if (typeof value !== 'object' || Array.isArray(value)) yield `${path} is no ${type}`;
    else {
      const fields = new Map(schema.getAttributeTypeMap().map((f) => [f.baseName, f.type]));
      for (const [key, item] of Object.entries(value))
        if (fields.has(key)) yield* faults(item, fields.get(key), `${path}.${key}`);
        else yield `${path}.${key} is no field of ${type}`;
    }
  }
}

function className(object) {
  const version = String(object.apiVersion).split('/').pop();
  return version.charAt(0).toUpperCase() + version.slice(1) + object.kind;
}

let objects = 0, wrong = 0;
for (const file of process.argv.slice(2))
  for (const object of yaml.loadAll(fs.readFileSync(file, 'utf8'))) {
    if (!object) continue;
    objects++;
    for (const fault of faults(object, className(object), object.kind)) {
      wrong++;
      console.log(`${file}: ${fault}`);
    }
  }
console.log(`${objects} objects, ${wrong} faults`);
process.exit(objects > 0 && wrong === 0 ? 0 : 1);
