import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Http2Session, type ServerHttp2Stream } from 'node:http2';
import { afterEach, describe, test } from 'node:test';
import { pickPort } from '../../contract/testing/ports.js';
import type { EtcdSettings } from './etcd-settings.js';
import { MemberPool } from './member-pool.js';
import { patient } from './testing/etcd-fixture.js';
import { methodOf } from './testing/etcd-messages.js';

const header = { cluster_id: '7', member_id: '1', revision: '5', raft_term: '2' };
const signedIn = (token: string): Buffer =>
  methodOf('etcdserverpb.Auth', 'Authenticate').responseSerialize({ header, token });
const emptyRange = methodOf('etcdserverpb.KV', 'Range').responseSerialize({ header });
const probe = { key: Buffer.from('k') };

const undo: (() => void)[] = [];
afterEach(() => {
  for (const one of undo.splice(0).reverse()) one();
});

interface Refusal {
  readonly status: string;
  readonly message: string;
}

/** A member of etcd with users: an answer for each method, by the token that came with it. */
async function member(answers: {
  readonly signIn: () => Buffer | Refusal;
  readonly range: (token: string) => Buffer | Refusal;
}): Promise<string> {
  const port = await pickPort();
  const sessions = new Set<Http2Session>();
  const server = createServer();
  server.on('session', (session) => sessions.add(session));
  server.on('stream', (stream, headers) => {
    stream.on('error', () => undefined).resume();
    const isSignIn = headers[':path'] === '/etcdserverpb.Auth/Authenticate';
    tell(stream, isSignIn ? answers.signIn() : answers.range(String(headers['token'])));
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  undo.push(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  return `127.0.0.1:${port}`;
}

function tell(stream: ServerHttp2Stream, answer: Buffer | Refusal): void {
  if (!Buffer.isBuffer(answer)) {
    const trailers = { 'grpc-status': answer.status, 'grpc-message': answer.message };
    stream.respond({ ':status': 200, ...trailers }, { endStream: true });
    return;
  }
  stream.respond({ ':status': 200 }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(answer.length, 1);
  stream.end(Buffer.concat([prefix, answer]));
}

function poolOf(endpoints: readonly string[]): MemberPool {
  const auth: NonNullable<EtcdSettings['auth']> = { user: 'quorate', password: 'right' };
  const pool = new MemberPool({ endpoints, prefix: '', auth, ...patient });
  undo.push(() => pool.close());
  return pool;
}

describe('tokens of a member', () => {
  test('many requests that find their token forgotten sign in once', async () => {
    let signIns = 0;
    let isForgotten = false;
    const endpoint = await member({
      signIn: () => signedIn(`token ${(signIns += 1)}`),
      range: (token) =>
        isForgotten && token === 'token 1'
          ? { status: '16', message: 'etcdserver: invalid auth token' }
          : emptyRange,
    });
    const pool = poolOf([endpoint]);
    await pool.repeat((one) => one.askRange(probe));
    assert.equal(signIns, 1);
    isForgotten = true;
    const requests = Array.from({ length: 50 }, () => pool.repeat((one) => one.askRange(probe)));
    await Promise.all(requests);
    assert.equal(signIns, 2);
  });

  test('a member that signs nobody in is passed over', async () => {
    const cutOff = await member({
      signIn: () => ({ status: '14', message: 'etcdserver: no leader' }),
      range: () => ({ status: '14', message: 'etcdserver: no leader' }),
    });
    const well = await member({ signIn: () => signedIn('t'), range: () => emptyRange });
    // A pool begins with any of its members.
    for (let start = 0; start < 12; start += 1) {
      const pool = poolOf([cutOff, well]);
      await pool.repeat((one) => one.askRange(probe));
    }
  });

  test('whose user is refused while it runs is told what to look at', async () => {
    const words = 'etcdserver: authentication failed, invalid user ID or password';
    const endpoint = await member({
      signIn: () => ({ status: '3', message: words }),
      range: () => emptyRange,
    });
    const asked = poolOf([endpoint]).repeat((one) => one.askRange(probe));
    const message = /refuses the user.*invalid user ID.*etcd\.user .*etcd\.passwordFile/;
    await assert.rejects(asked, { code: 'unavailable', message });
  });
});
