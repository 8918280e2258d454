import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ownCommand } from './own-command.js';

test('lines to paste name the program as it was started', () => {
  for (const [script, command] of [
    ['/srv/quorate/dist/server/main.js', 'node dist/server/main.js'],
    ['/usr/local/bin/quorate', 'quorate'],
    ['/home/ann/.npm/_npx/7987f220/node_modules/.bin/quorate', 'npx quorate'],
    ['/srv/quorate/node_modules/.bin/quorate', 'npx quorate'],
  ] as const) {
    assert.equal(ownCommand(script, '/srv/quorate'), command);
  }
});
