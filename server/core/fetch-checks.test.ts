import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFilter } from './fetch-checks.js';

const filters: readonly (readonly [string, boolean])[] = [
  ['blob:none', true],
  ['blob:limit=0', true],
  ['blob:limit=10m', true],
  ['tree:0', true],
  ['object:type=commit', true],
  ['combine:blob:none+tree:3', true],
  ['combine:blob%3Anone+tree%3A3', true],
  ['blob:limit=-1', false],
  ['blob:limit=', false],
  ['tree:x', false],
  ['object:type=all', false],
  ['sparse:oid=main:.sparse', false],
  ['combine:blob:none+sparse:oid=x', false],
  ['combine:%', false],
  [`${'combine:'.repeat(10)}tree:0`, false],
  ['', false],
  ['--help', false],
];

for (const [spec, taken] of filters) {
  test(`filter ${taken ? 'taken' : 'refused'}: ${spec}`, () => assert.equal(isFilter(spec), taken));
}
