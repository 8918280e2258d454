import assert from 'node:assert/strict';
import { once } from 'node:events';
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Rendezvous } from './rendezvous.js';
import { takeRunLock } from './run-lock.js';
import { Slots } from './slots.js';

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'quorate-test-'));
});
after(() => rmSync(directory, { recursive: true, force: true }));

describe('rendezvous', () => {
  it('gives a connection to whoever expects its token, with what followed', async () => {
    const path = join(directory, 'a.sock');
    const rendezvous = await Rendezvous.listen(path);
    const first = rendezvous.expect();
    const second = rendezvous.expect();
    const client = connect(path);
    const token = Buffer.from(second.token, 'hex');
    client.write(token.subarray(0, 5));
    client.write(Buffer.concat([token.subarray(5), Buffer.from('hello')]));
    const socket = await second.socket;
    const [data] = await once(socket, 'data');
    assert.equal(String(data), 'hello');
    first.forget();
    socket.destroy();
    client.destroy();
    rendezvous.close();
  });

  it('hangs up on a token that is wrong, used, or no longer expected', async () => {
    const path = join(directory, 'b.sock');
    const rendezvous = await Rendezvous.listen(path);
    const used = rendezvous.expect();
    const forgotten = rendezvous.expect();
    forgotten.forget();
    const good = connect(path);
    good.write(Buffer.from(used.token, 'hex'));
    const socket = await used.socket;
    for (const token of [used.token, forgotten.token, '00'.repeat(16)]) {
      const client = connect(path);
      client.on('error', () => {});
      client.write(Buffer.from(token, 'hex'));
      await once(client, 'close');
    }
    assert.equal(socket.destroyed, false);
    used.forget();
    assert.equal(socket.destroyed, true);
    good.destroy();
    rendezvous.close();
  });
});

describe('run lock', () => {
  it('is free when nobody holds it, and waits for whoever does', async () => {
    const path = await takeRunLock(directory);
    assert.equal(await takeRunLock(directory), path);
    const holder = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    await assert.rejects(takeRunLock(directory, 100), { code: 'unavailable' });
    const waiting = takeRunLock(directory);
    closeSync(holder);
    assert.equal(await waiting, path);
  });

  it('refuses a file in its place', async () => {
    const other = mkdtempSync(join(directory, 'x-'));
    writeFileSync(join(other, 'spawn.lock'), '');
    await assert.rejects(takeRunLock(other), { code: 'storage-failure' });
  });
});

describe('slots', () => {
  it('lets a waiter leave without losing a place', async () => {
    const slots = new Slots(1, 2);
    await slots.take();
    const controller = new AbortController();
    const gone = slots.take(controller.signal);
    const next = slots.take();
    await assert.rejects(slots.take(), { code: 'resource-exhausted' });
    controller.abort();
    await assert.rejects(gone, { code: 'cancelled' });
    assert.equal(slots.queued, 1);
    slots.release();
    await next;
    assert.equal(slots.taken, 1);
    slots.release();
    assert.equal(slots.taken, 0);
  });
});
