import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { growingPercent, tuneEngine } from './engine-settings.js';

const mib = 1024 ** 2;

test('small heaps may grow by the same room, large ones as V8 thinks best', () => {
  assert.equal(growingPercent(8 * mib), 300);
  assert.equal(growingPercent(48 * mib), 200);
  assert.equal(growingPercent(96 * mib), 100);
  assert.equal(growingPercent(384 * mib), 25);
  assert.equal(growingPercent(400 * mib), 0);
  assert.equal(growingPercent(4096 * mib), 0);
});

test('the room follows the size of the heap', async () => {
  const flags: string[] = [];
  tuneEngine((flag) => flags.push(flag));
  const percent = (): number =>
    Number(/^--heap-growing-percent=(\d+)$/.exec(flags.at(-1) ?? '')?.[1]);
  const before = percent();
  assert.ok(before > 100 && before <= 300, `${before}`);

  const large = Array.from({ length: 12 }, () => Array.from({ length: mib }, () => 0.5));
  setFlagsFromString('--expose-gc');
  const collect: unknown = runInNewContext('gc');
  assert.ok(typeof collect === 'function');
  for (let tries = 0; tries < 200 && percent() >= before; tries += 1) {
    Reflect.apply(collect, undefined, []);
    await delay(20);
  }
  assert.equal(large.length, 12);
  // 96 MiB and what a test runner takes.
  assert.ok(percent() >= 25 && percent() <= 100, `${percent()}`);
});

test('V8 knows the flags', async () => {
  const settings = new URL('./engine-settings.js', import.meta.url).href;
  const program = `(await import(${JSON.stringify(settings)})).tuneEngine();`;
  const args = ['--input-type=module', '--eval', program];
  const { stderr } = await promisify(execFile)(process.execPath, args);
  assert.doesNotMatch(stderr, /flag/);
});
