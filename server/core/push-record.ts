import type { PushResult } from '../../backends/contract/backend.js';
import type { QuorateError } from '../../backends/contract/errors.js';
import type { Repository } from '../../backends/contract/repository.js';
import { principalName } from '../auth/principal.js';
import type { GitContext } from './git-context.js';
import type { JudgedCommands } from './push-commands.js';

/** `cancelled`: the pusher left before it was over, which is no trouble of the server. */
type Outcome = 'ok' | 'partial' | 'refused' | 'cancelled' | 'error';

interface Recorded {
  readonly repository: Repository;
  readonly pushId: string;
  readonly judged: JudgedCommands;
  readonly result?: PushResult;
  readonly error?: QuorateError;
}

/**
 * Counts a push and puts it into the audit log. The answer waits until that is on disk, which it is before the report,
 * unless the disk is slower than its bound.
 */
export function recordPush(
  { parts, request }: GitContext,
  recorded: Recorded,
): () => Promise<void> {
  const { repository, pushId, result, error } = recorded;
  const outcome = outcomeOf(recorded);
  parts.meter.count('pushes', { outcome });
  parts.audit.record({
    event: 'push',
    outcome: auditOutcomes[outcome],
    actor: principalName(request.principal),
    remoteAddress: request.remoteAddress,
    transport: request.transport,
    requestId: request.requestId,
    repository: repository.name,
    details: {
      pushId,
      repositoryId: repository.id,
      refs: refLines(recorded),
      ...(result === undefined ? {} : { unpack: result.unpack }),
      ...(result?.generation === undefined ? {} : { generation: result.generation }),
      ...(error === undefined ? {} : { error: error.code }),
    },
  });
  let isOver = false;
  const flushed = parts.audit
    .flush()
    .catch((cause: unknown) => {
      parts.logger.error({ component: 'core', err: cause }, 'the audit log cannot be written');
    })
    .finally(() => {
      isOver = true;
    });
  return async () => {
    if (isOver) return;
    const waited = new AbortController();
    await Promise.race([flushed, parts.clock.sleep(parts.limits.auditFlushMs, waited.signal)]);
    waited.abort('over');
  };
}

/** Facts of a push for the log line. */
export function refsOf(result: PushResult): Readonly<Record<string, unknown>> {
  const updated = result.refs.filter(({ status }) => status === 'ok').length;
  return {
    refs_updated: updated,
    refs_refused: result.refs.length - updated,
    ...(result.generation === undefined ? {} : { generation: result.generation }),
  };
}

const auditOutcomes = {
  ok: 'ok',
  partial: 'ok',
  refused: 'refused',
  cancelled: 'error',
  error: 'error',
} as const;

function outcomeOf({ result, error }: Recorded): Outcome {
  if (result === undefined) return error?.code === 'cancelled' ? 'cancelled' : 'error';
  const accepted = result.refs.filter(({ status }) => status === 'ok').length;
  if (accepted === result.refs.length) return 'ok';
  return accepted === 0 ? 'refused' : 'partial';
}

/** Every ref with old and new and what became of it. Without a result that is the error's code, for all of them. */
function refLines({ judged, result, error }: Recorded): readonly object[] {
  const outcomes = new Map(result?.refs.map((outcome) => [outcome.ref, outcome]));
  return judged.commands.map(({ ref, oldOid, newOid }) => {
    const outcome = outcomes.get(ref);
    if (outcome === undefined) return { ref, oldOid, newOid, status: error?.code ?? 'unknown' };
    return outcome.status === 'ok'
      ? outcome
      : { ref, oldOid, newOid, status: outcome.status, reason: outcome.reason };
  });
}
