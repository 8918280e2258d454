import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { promisify } from 'node:util';
import { createLogger } from './logger.js';
import type { LogLevel, RootLogger } from './logger.js';
import { until } from '../../backends/contract/testing/until.js';

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
    desc: 'a property of an error',
    fields: { err: Object.assign(new Error('refused'), { password: 'hunter2' }) },
  },
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

test('no secret is written: a field that a child logger keeps', async () => {
  const text = await written('info', (logger) => {
    logger.child({ token: 'hunter2' }).info({ repo: 'a' }, 'a message');
  });
  assert.match(text, /a message/);
  assert.doesNotMatch(text, /hunter2/);
});

test('hiding a secret leaves the fields themselves as they are', async () => {
  const headers = { authorization: 'Basic hunter2', host: 'h' };
  const fields = { token: 'hunter2', headers };
  const text = await written('info', (logger) => logger.info(fields, 'a message'));
  assert.match(
    text,
    /"token":"\[redacted\]","headers":\{"authorization":"\[redacted\]","host":"h"\}/,
  );
  assert.deepEqual(fields, { token: 'hunter2', headers });
  assert.equal(headers.authorization, 'Basic hunter2');
});

test('lines that do not fill a write go out by themselves, and at once with an error', async () => {
  const file = path.join(directory, 'log');
  const logger = createLogger({ level: 'info', destination: file });
  await logger.ready;
  logger.info({}, 'first');
  await until('the first is written', async () => (await readFile(file, 'utf8')).includes('first'));
  logger.info({}, 'second');
  logger.error({}, 'third');
  await until('the others are written', async () =>
    /second[^]*third/.test(await readFile(file, 'utf8')),
  );
});

test('lines that wait are not lost when the process exits', async () => {
  const file = path.join(directory, 'log');
  const program = `
    const { createLogger } = await import(${JSON.stringify(new URL('logger.js', import.meta.url).href)});
    const logger = createLogger({ level: 'info', destination: ${JSON.stringify(file)} });
    await logger.ready;
    for (let i = 0; i < 100; i += 1) logger.info({ i }, 'line');
    process.exit(0);`;
  await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program]);
  const lines = (await readFile(file, 'utf8')).trim().split('\n');
  assert.equal(lines.length, 100);
});

test('user names in SSH URLs are no secrets', async () => {
  const text = await written('info', (logger) => logger.info({ url: 'ssh://git@host/x' }, 'm'));
  assert.match(text, /ssh:\/\/git@host\/x/);
});
