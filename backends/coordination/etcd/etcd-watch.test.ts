import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import type { IWatchResponse } from 'etcd3';
import { silentLogger } from '../test-environment.js';
import { followRange, type WatchPatience, type WatchStream } from './etcd-watch.js';
import { WireFormat } from './wire-format.js';

const never = 2 ** 30;

function responseOf(revision: number, events: IWatchResponse['events'] = []): IWatchResponse {
  return {
    header: { cluster_id: '1', member_id: '1', revision: String(revision), raft_term: '1' },
    watch_id: '0',
    created: false,
    canceled: false,
    compact_revision: '0',
    cancel_reason: '',
    fragment: false,
    events,
  };
}

function put(revision: number): IWatchResponse {
  const kv = {
    key: Buffer.from('k'),
    value: Buffer.alloc(0),
    create_revision: '1',
    mod_revision: String(revision),
    version: '1',
    lease: '0',
  };
  return responseOf(revision, [{ type: 'Put', kv, prev_kv: kv }]);
}

/** A member of etcd that answers the n-th stream with what is scripted for it, and is silent then. */
class SilentMember {
  /** From where each stream was asked for. */
  readonly asked: number[] = [];
  #open = 0;

  constructor(readonly script: readonly (readonly IWatchResponse[])[]) {}

  get open(): number {
    return this.#open;
  }

  connect = async (): Promise<WatchStream> => {
    this.#open += 1;
    const answers = this.script[this.asked.length] ?? [];
    const duplex = new Duplex({
      objectMode: true,
      read: () => undefined,
      write: (message: { create_request: { start_revision: string } }, _encoding, done) => {
        this.asked.push(Number(message.create_request.start_revision));
        duplex.push({ ...responseOf(1), created: true });
        for (const answer of answers) duplex.push(answer);
        done();
      },
      destroy: (error, done) => {
        this.#open -= 1;
        done(error);
      },
    });
    return {
      duplex,
      cancel: () => duplex.destroy(new Error('cancelled')),
      avoid: () => assert.fail('it did not fail'),
    };
  };

  async take(count: number, patience: WatchPatience): Promise<readonly number[]> {
    const leaving = new AbortController();
    const parts = {
      connect: this.connect,
      observe: () => undefined,
      format: new WireFormat(''),
      logger: silentLogger,
      closing: new AbortController().signal,
      patience,
    };
    const request = { key: 'k', rangeEnd: undefined, fromRevision: 5 };
    // Timers of a watch keep no process alive.
    const alive = setInterval(() => undefined, 1_000);
    const revisions: number[] = [];
    try {
      for await (const { revision } of followRange(parts, request, leaving.signal)) {
        revisions.push(revision);
        if (revisions.length === count) break;
      }
    } finally {
      clearInterval(alive);
    }
    return revisions;
  }
}

test('a watcher that etcd forgets after events goes on where it was', async () => {
  const member = new SilentMember([[put(7)], [], [put(9)]]);
  // The second stream is silent from its beginning on.
  const taken = await member.take(2, { afterEventsMs: 20, signOfLifeMs: 40 });
  assert.deepEqual(taken, [7, 9]);
  assert.deepEqual(member.asked, [5, 8, 8]);
  assert.equal(member.open, 0);
});

test('a watcher to whom etcd says that nothing happened is not begun again for what happened before', async () => {
  const member = new SilentMember([[put(7), responseOf(20)], [put(30)]]);
  const patience = { afterEventsMs: never, signOfLifeMs: 20 };
  assert.deepEqual(await member.take(2, patience), [7, 30]);
  assert.deepEqual(member.asked, [5, 21]);
});

test('who takes long over what came is not taken for a silence', async () => {
  const member = new SilentMember([[put(7), put(8)]]);
  const leaving = new AbortController();
  const parts = {
    connect: member.connect,
    observe: () => undefined,
    format: new WireFormat(''),
    logger: silentLogger,
    closing: new AbortController().signal,
    patience: { afterEventsMs: 5, signOfLifeMs: never },
  };
  const request = { key: 'k', rangeEnd: undefined, fromRevision: 5 };
  const revisions: number[] = [];
  for await (const { revision } of followRange(parts, request, leaving.signal)) {
    revisions.push(revision);
    // Longer than the silence that is allowed.
    await new Promise((resolve) => void setTimeout(resolve, 10));
    if (revisions.length === 2) break;
  }
  assert.deepEqual(revisions, [7, 8]);
  assert.deepEqual(member.asked, [5]);
});
