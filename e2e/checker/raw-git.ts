import { createHash } from 'node:crypto';
import { request } from 'node:http';
import type { Agent } from 'node:http';
import { deflateSync } from 'node:zlib';
import { zeroOid } from './push-journal.js';
import type { Verdict } from './push-journal.js';

/* Git's formats and the smart HTTP protocol (gitformat-pack(5), gitprotocol-http(5)), written down once more. */

export interface GitObject {
  readonly oid: string;
  readonly type: 'commit' | 'tree' | 'tag' | 'blob';
  readonly body: Buffer;
}

const typeCodes = { commit: 1, tree: 2, blob: 3, tag: 4 } as const;

export function gitObject(type: GitObject['type'], body: Buffer | string): GitObject {
  const bytes = Buffer.from(body);
  const oid = createHash('sha1').update(`${type} ${bytes.length}\0`).update(bytes).digest('hex');
  return { oid, type, body: bytes };
}

export const emptyTree = gitObject('tree', '');

const signature = 'Test <test@example.org> 1700000000 +0000';

/** A commit of the empty tree; `message` makes it unlike any other. */
export function emptyCommit(message: string, parents: readonly string[]): GitObject {
  const lines = parents.map((parent) => `parent ${parent}\n`).join('');
  return gitObject(
    'commit',
    `tree ${emptyTree.oid}\n${lines}author ${signature}\ncommitter ${signature}\n\n${message}\n`,
  );
}

export function annotatedTag(name: string, target: string): GitObject {
  return gitObject(
    'tag',
    `object ${target}\ntype commit\ntag ${name}\ntagger ${signature}\n\n${name}\n`,
  );
}

/** A pack of whole objects. */
export function packOf(objects: readonly GitObject[]): Buffer {
  const header = Buffer.alloc(12);
  header.write('PACK', 0, 'latin1');
  header.writeUInt32BE(2, 4);
  header.writeUInt32BE(objects.length, 8);
  const parts = objects.map(({ type, body }) =>
    Buffer.concat([entryHeader(typeCodes[type], body.length), deflateSync(body)]),
  );
  const content = Buffer.concat([header, ...parts]);
  return Buffer.concat([content, createHash('sha1').update(content).digest()]);
}

function entryHeader(type: number, size: number): Buffer {
  const bytes: number[] = [];
  let rest = Math.floor(size / 16);
  let byte = type * 16 + (size % 16);
  while (rest > 0) {
    bytes.push(byte + 128);
    byte = rest % 128;
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...bytes, byte]);
}

export function pkt(text: string): Buffer {
  const body = Buffer.from(text);
  return Buffer.concat([Buffer.from((body.length + 4).toString(16).padStart(4, '0')), body]);
}

export const flushPkt = Buffer.from('0000');

/** Payloads of the packets; null for a flush. Throws when the bytes end inside a packet. */
export function readPkts(bytes: Buffer): (Buffer | null)[] {
  const found: (Buffer | null)[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = Number.parseInt(bytes.toString('latin1', at, at + 4), 16);
    if (length === 0) {
      found.push(null);
      at += 4;
      continue;
    }
    if (!(length >= 4) || at + length > bytes.length) throw new Error('a cut packet');
    found.push(bytes.subarray(at + 4, at + length));
    at += length;
  }
  return found;
}

export interface RefMove {
  readonly ref: string;
  readonly old: string;
  readonly new: string;
}

/** Body of a `git-receive-pack` request. */
export function pushBody(
  moves: readonly RefMove[],
  objects: readonly GitObject[],
  options: { readonly atomic?: boolean } = {},
): Buffer {
  const capabilities = `report-status${options.atomic === true ? ' atomic' : ''} agent=raw`;
  const commands = moves.map(({ ref, old, new: value }, index) =>
    pkt(`${old} ${value} ${ref}${index === 0 ? `\0${capabilities}` : ''}`),
  );
  const deletesOnly = moves.every((move) => move.new === zeroOid);
  return Buffer.concat([...commands, flushPkt, ...(deletesOnly ? [] : [packOf(objects)])]);
}

export interface RawAnswer {
  readonly status: number;
  readonly body: Buffer;
}

/** Rejects when the connection ends before the whole answer is there. */
export function exchange(
  url: string,
  options: { readonly agent: Agent; readonly post?: { type: string; body: Buffer } },
): Promise<RawAnswer> {
  const { username, password, protocol, host, pathname, search } = new URL(url);
  const { agent, post } = options;
  return new Promise((resolve, reject) => {
    const asked = request(
      `${protocol}//${host}${pathname}${search}`,
      {
        agent,
        method: post === undefined ? 'GET' : 'POST',
        headers: {
          ...(username === ''
            ? {}
            : {
                authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`,
              }),
          ...(post === undefined
            ? {}
            : { 'content-type': post.type, 'content-length': post.body.length }),
        },
      },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.on('error', reject);
        answer.on('close', () => reject(new Error('the answer was cut')));
        answer.on('end', () => {
          if (answer.complete)
            resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(chunks) });
        });
      },
    );
    // A server that hangs must fail the test, not hang it.
    asked.setTimeout(60_000, () => asked.destroy(new Error('no answer for a minute')));
    asked.on('error', reject);
    asked.end(post?.body);
  });
}

/** Pushes and says what the report says of each ref: `unknown` for all unless the whole report came. */
export async function rawPush(
  repositoryUrl: string,
  body: Buffer,
  options: { readonly agent: Agent; readonly refs: readonly string[] },
): Promise<ReadonlyMap<string, { verdict: Verdict; reason: string }>> {
  const post = { type: 'application/x-git-receive-pack-request', body };
  const answer = await exchange(`${repositoryUrl}/git-receive-pack`, {
    agent: options.agent,
    post,
  }).catch((error: unknown) => error);
  const verdicts = new Map<string, { verdict: Verdict; reason: string }>();
  const lines = reportLines(answer);
  for (const ref of options.refs) {
    if (lines.includes(`ok ${ref}`)) verdicts.set(ref, { verdict: 'acknowledged', reason: '' });
    const refused = lines.find((line) => line.startsWith(`ng ${ref} `));
    if (refused !== undefined) {
      verdicts.set(ref, { verdict: 'refused', reason: refused.slice(`ng ${ref} `.length) });
    }
    if (!verdicts.has(ref)) verdicts.set(ref, { verdict: 'unknown', reason: String(answer) });
  }
  return verdicts;
}

function reportLines(answer: unknown): readonly string[] {
  if (typeof answer !== 'object' || answer === null || !('status' in answer)) return [];
  if (answer.status !== 200 || !('body' in answer) || !(answer.body instanceof Buffer)) return [];
  const packets = readPkts(answer.body);
  // Complete only with its flush: before that more lines could have followed.
  if (packets.at(-1) !== null) return [];
  return packets.flatMap((packet) => (packet === null ? [] : [packet.toString().trimEnd()]));
}

/** The refs that a client is shown (without HEAD), or undefined when there is no such repository. */
export async function listRefs(
  repositoryUrl: string,
  agent: Agent,
): Promise<ReadonlyMap<string, string> | undefined> {
  const url = `${repositoryUrl}/info/refs?service=git-upload-pack`;
  const { status, body } = await exchange(url, { agent });
  if (status === 404) return undefined;
  if (status !== 200) throw new Error(`refs: HTTP ${status}: ${body.toString()}`);
  const refs = new Map<string, string>();
  for (const packet of readPkts(body)) {
    const line = packet?.toString() ?? '';
    const match = /^([0-9a-f]{40}) (refs\/[^\0\n]+)/.exec(line);
    if (match === null || line.includes('^{}')) continue;
    const [, oid = '', ref = ''] = match;
    refs.set(ref, oid);
  }
  return refs;
}
