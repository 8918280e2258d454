import type { PushRequest, PushResult } from '../../contract/backend.js';
import { asQuorateError } from '../../contract/errors.js';
import type { RefCommand } from '../../contract/objects.js';
import type { PushAnswer, PushOperation } from './history.js';
import { zeroOid } from './pack-model.js';

/** What a push of the history asks of a front-end. */
export function requestOf(
  { pushId, commands, atomic }: PushOperation,
  pack: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): PushRequest {
  const sends = commands.some(({ newOid }) => newOid !== zeroOid);
  return {
    pushId,
    actor: 'someone',
    commands,
    refused: new Map(),
    atomic,
    pushOptions: [],
    pack: sends ? pack : undefined,
    shallow: [],
    progress: () => undefined,
    quiet: true,
    signal,
  };
}

export function reportOf({ unpack, refs, generation }: PushResult): PushAnswer {
  const ok = refs.filter(({ status }) => status === 'ok').map(({ ref }) => ref);
  return { status: 'reported', ok: new Set(unpack === 'ok' ? ok : []), generation };
}

export function failureOf(error: Error): PushAnswer {
  const { code, message } = asQuorateError(error);
  return code === 'outcome-unknown' ? { status: 'unknown' } : { status: 'failed', code, message };
}

/** Words by which it is counted. */
export function kindOf(answer: PushAnswer, commands: number): string {
  if (answer.status === 'unknown') return 'unknown';
  if (answer.status === 'failed') return `failed: ${answer.code}`;
  if (answer.ok.size === 0) return 'refused';
  return answer.ok.size === commands ? 'acknowledged' : 'acknowledged in part';
}

export function describeCommands(commands: readonly RefCommand[]): string {
  return commands
    .map(({ ref, oldOid, newOid }) => `${ref} ${oldOid.slice(0, 8)}>${newOid.slice(0, 8)}`)
    .join(', ');
}

export function describeAnswer(answer: PushAnswer): string {
  if (answer.status === 'reported') return `${answer.ok.size} ok at ${answer.generation ?? '-'}`;
  return answer.status === 'failed' ? `${answer.code}: ${answer.message}` : 'unknown';
}
