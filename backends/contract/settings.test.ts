import assert from 'node:assert/strict';
import { test } from 'node:test';
import { booleanSetting, denialSetting, numberSetting, settingProblem } from './settings.js';

test('a boolean is what git takes for one', () => {
  const key = 'receive.denyDeletes';
  for (const value of ['true', 'Yes', 'ON', '1', '2', '-1', '1k']) {
    assert.equal(settingProblem(key, value), undefined, value);
    assert.equal(booleanSetting({ [key]: value }, key), true, value);
  }
  for (const value of ['false', 'no', 'Off', '0', '']) {
    assert.equal(settingProblem(key, value), undefined, value);
    assert.equal(booleanSetting({ [key]: value }, key), false, value);
  }
  assert.equal(settingProblem(key, 'refuse'), 'wants true or false');
});

test("receive.denyDeleteCurrent takes git's words and booleans", () => {
  const key = 'receive.denyDeleteCurrent';
  const table = {
    refuse: ['refuse', 'Refuse', 'true', 'yes', '1'],
    warn: ['warn', 'WARN'],
    ignore: ['ignore', 'false', 'no', '0', ''],
  } as const;
  for (const denial of ['refuse', 'warn', 'ignore'] as const) {
    for (const value of table[denial]) {
      assert.equal(settingProblem(key, value), undefined, value);
      assert.equal(denialSetting({ [key]: value }, key), denial, value);
    }
  }
  assert.equal(denialSetting({}, key), 'refuse');
  assert.equal(settingProblem(key, 'deny'), 'wants refuse, warn or ignore, or true or false');
});

test("sizes are numbers with git's units", () => {
  const key = 'receive.maxInputSize';
  const table = { '0': 0, '512': 512, '1k': 1024, '2M': 2 * 1024 ** 2, '3g': 3 * 1024 ** 3 };
  for (const [value, size] of Object.entries(table)) {
    assert.equal(settingProblem(key, value), undefined, value);
    assert.equal(numberSetting({ [key]: value }, key), size, value);
  }
  for (const value of ['', 'k', '1t', '1.5g', '-1']) {
    assert.equal(settingProblem(key, value), 'wants a whole number, with k, m or g if you like');
  }
});
