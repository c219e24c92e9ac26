// Writes the two classic scripts that the host embeds. Same input, same bytes; run it again and nothing changes.
//   dist/gate.js    at document start
//   dist/driver.js  once the gate is open: our recorder, wa-js byte for byte, our adapter; its value is the adapter's object
import { build } from 'esbuild';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';

const waJs = 'node_modules/@wppconnect/wa-js/';

async function script(entry) {
  const out = await build({
    entryPoints: [entry], bundle: true, write: false, format: 'iife', target: 'chrome120', charset: 'utf8', legalComments: 'none', minify: false,
  });
  return out.outputFiles[0].text;
}

function write(name, text) {
  writeFileSync(`dist/${name}`, text);
  console.log(`dist/${name} ${text.length} characters, sha256 ${createHash('sha256').update(text).digest('hex').slice(0, 16)}`);
}

mkdirSync('dist', { recursive: true });
write('gate.js', await script('src/gate.ts'));
write('driver.js', [
  await script('src/recorder.ts'),
  readFileSync(`${waJs}dist/wppconnect-wa.js`, 'utf8'),
  await script('src/driver.ts'),
  'globalThis[Symbol.for(__ZAGUAN_SETTINGS__.binding)]\n',
].join('\n;'));
// wa-js is Apache-2.0: its notices go where its code goes.
copyFileSync(`${waJs}LICENSE`, 'dist/wa-js.LICENSE');
copyFileSync(`${waJs}dist/wppconnect-wa.js.LICENSE.txt`, 'dist/wa-js.LICENSE.txt');
