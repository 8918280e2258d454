import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createScene } from './harness.js';

/** What `npm run NAME` runs once all is built; the cluster is in `cluster/run-cluster.test.ts`. */
const programs = [
  { name: 'bench', words: ['../bench/main.js'] },
  { name: 'bench -- replicated', words: ['../bench/main.js', 'replicated'] },
  { name: 'simulate', words: ['../backends/conformance/simulation/main.js'] },
  { name: 'faults', words: ['../../scripts/faults.mjs'] },
];

for (const { name, words } of programs) {
  test(`npm run ${name}: usage, and mistakes in a sentence`, async (t) => {
    const scene = await createScene(t);
    const [file = '', ...rest] = words;
    const script = fileURLToPath(new URL(file, import.meta.url));
    const help = await scene.run(process.execPath, [script, ...rest, '--help']);
    assert.equal(help.exitCode, 0, help.stderr);
    assert.match(help.stdout, new RegExp(`^Usage: npm run ${name} `));
    const wrong = await scene.run(process.execPath, [script, ...rest, '--nonsense']);
    assert.equal(wrong.exitCode, 2);
    assert.equal(wrong.stderr, "error: unknown option '--nonsense'\n");
  });
}
