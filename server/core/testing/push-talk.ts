/** What a pusher says in tests, and reads in the answer. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { PassThrough } from 'node:stream';
import type { Capability } from '../../wire/capabilities.js';
import { writeCommandList, type PushCommand } from '../../wire/command-list.js';
import { PktReader } from '../../wire/pkt-line.js';
import { readStatusReport, type StatusReport } from '../../wire/report-status.js';
import { parseSideBand } from '../../wire/side-band.js';
import { oidOf, type Talk } from '../fake-service.js';

export const service = 'git-receive-pack' as const;
export const stateless = { service, mode: 'stateless' } as const;
export const session = { service, mode: 'session' } as const;
const zero = oidOf('0');
export const create: PushCommand = { oldOid: zero, newOid: oidOf('a'), ref: 'refs/heads/main' };
export const remove: PushCommand = { oldOid: oidOf('a'), newOid: zero, ref: 'refs/heads/old' };
export const packStart = Buffer.from('PACK\0\0\0\x02\0\0\0\0');
export const pack = Buffer.concat([packStart, createHash('sha1').update(packStart).digest()]);

export function pushOf(
  commands: readonly PushCommand[],
  options: { names?: string; pushOptions?: readonly string[]; pack?: Buffer } = {},
): Buffer {
  const names = (options.names ?? 'report-status side-band-64k').split(' ');
  const capabilities: Capability[] = names.map((name) => ({ name }));
  const list = writeCommandList({ commands, capabilities, shallow: [] }, options.pushOptions);
  return Buffer.concat([Buffer.from(list), options.pack ?? pack]);
}

/** What came on each band, less keep-alives; `undefined` report where band 1 had none. */
export async function heard(output: Buffer): Promise<{
  readonly report: StatusReport | undefined;
  readonly progress: string;
  readonly fatal: string;
}> {
  const reader = new PktReader(PassThrough.from([output]));
  const bands: Record<1 | 2 | 3, Buffer[]> = { 1: [], 2: [], 3: [] };
  for (;;) {
    const pkt = await reader.read();
    if (pkt === undefined || pkt.type !== 'data') break;
    const { band, data } = parseSideBand(pkt.payload);
    bands[band].push(data);
  }
  const report = Buffer.concat(bands[1]);
  return {
    report: report.length === 0 ? undefined : await reportIn(report),
    progress: Buffer.concat(bands[2]).toString(),
    fatal: Buffer.concat(bands[3]).toString(),
  };
}

export function reportIn(bytes: Buffer): Promise<StatusReport> {
  return readStatusReport(new PktReader(PassThrough.from([bytes])));
}

export async function reported(talk: Talk): Promise<StatusReport> {
  assert.equal(talk.error, undefined);
  const { report } = await heard(talk.output);
  assert.ok(report !== undefined);
  return report;
}
