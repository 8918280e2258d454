import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { capabilities, onlyWireErrors } from './arbitraries.js';
import {
  capabilityValue,
  hasCapability,
  parseCapabilities,
  writeCapabilities,
} from './capabilities.js';

test('lists round-trip', () => {
  fc.assert(
    fc.property(capabilities, (list) => {
      assert.deepEqual(parseCapabilities(writeCapabilities(list)), list);
    }),
  );
});

test("the space that git's clients send first is skipped, and values are found", () => {
  const list = parseCapabilities(' atomic agent=git/2.39.5 agent=other empty=');
  assert.ok(hasCapability(list, 'atomic'));
  assert.ok(!hasCapability(list, 'atom'));
  assert.equal(capabilityValue(list, 'agent'), 'git/2.39.5');
  assert.equal(capabilityValue(list, 'atomic'), undefined);
  assert.equal(capabilityValue(list, 'empty'), '');
});

test('hostile lists are bounded', async () => {
  assert.throws(() => parseCapabilities('a '.repeat(257)), { kind: 'too-large' });
  assert.throws(() => parseCapabilities('=x'), { kind: 'malformed' });
  await fc.assert(
    fc.asyncProperty(fc.string(), (text) => onlyWireErrors(() => parseCapabilities(text))),
  );
});
