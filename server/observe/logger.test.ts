import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { createLogger } from './logger.js';
import type { LogLevel, RootLogger } from './logger.js';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'log-'));
});
afterEach(() => rm(directory, { recursive: true }));

/** What is written when `use` has used a logger. */
async function written(level: LogLevel, use: (logger: RootLogger) => void): Promise<string> {
  const file = path.join(directory, 'log');
  const logger = createLogger({ level, destination: file });
  await logger.ready;
  use(logger);
  logger.flush();
  return readFile(file, 'utf8');
}

test('a line is one JSON object with time, level, fields and message', async () => {
  const text = await written('info', (logger) => {
    logger.child({ component: 'http' }).warn({ repo: 'team/app' }, 'a static message');
  });
  const { time, pid, ...line }: Record<string, unknown> = JSON.parse(text);
  assert.match(String(time), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  assert.equal(pid, process.pid);
  assert.deepEqual(line, {
    level: 'warn',
    component: 'http',
    repo: 'team/app',
    msg: 'a static message',
  });
});

test('lines below the level are not written', async () => {
  const text = await written('warn', (logger) => {
    logger.debug({}, 'quiet');
    logger.info({}, 'quiet');
    logger.child({}).info({}, 'quiet');
    logger.error({}, 'loud');
  });
  assert.equal(text.trim().split('\n').length, 1);
  assert.match(text, /loud/);
});

test('errors are written with type, message, stack and cause', async () => {
  const text = await written('info', (logger) => {
    logger.error({ err: new Error('outer', { cause: new Error('inner') }) }, 'failed');
  });
  assert.match(text, /"type":"Error"/);
  assert.match(text, /outer.*inner/);
});

const secrets = [
  { desc: 'a field named like a secret', fields: { token: 'hunter2' } },
  { desc: 'one a level down', fields: { headers: { authorization: 'Basic hunter2' } } },
  { desc: 'credentials in a URL', fields: { source: 'https://me:hunter2@example.org/x.git' } },
  {
    desc: 'credentials in the URL of an error',
    fields: { err: new Error('git clone http://u:hunter2@h/') },
  },
];
for (const { desc, fields } of secrets) {
  test(`no secret is written: ${desc}`, async () => {
    const text = await written('info', (logger) => logger.info(fields, 'a message'));
    assert.match(text, /a message/);
    assert.doesNotMatch(text, /hunter2/);
  });
}

test('user names in SSH URLs are no secrets', async () => {
  const text = await written('info', (logger) => logger.info({ url: 'ssh://git@host/x' }, 'm'));
  assert.match(text, /ssh:\/\/git@host\/x/);
});
