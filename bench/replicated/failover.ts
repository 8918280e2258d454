import { Agent } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { emptyCommit, emptyTree, listRefs, pushBody, rawPush } from '../../e2e/checker/raw-git.js';
import { zeroOid } from '../../e2e/checker/push-journal.js';
import type { ClusterScene } from '../../e2e/cluster/cluster-scene.js';

export interface Failover {
  /** From the kill to the answer of the first push that was begun after it. */
  readonly writeGapMs: number;
  /** Reads during the gap that failed at the first front-end asked, and again at the other. */
  readonly readsFailed: number;
  readonly reads: number;
}

/** One try is given up after so long; the client then asks the other front-end. */
const tryTimeoutMs = 10_000;

/**
 * What a client sees that pushes and reads while something is killed. It knows both front-ends, and asks the other one
 * when a try fails.
 */
export async function measureFailover(
  ground: ClusterScene,
  repository: string,
  kill: () => Promise<unknown>,
): Promise<Failover> {
  const ref = `refs/heads/f${Math.random().toString(36).slice(2)}`;
  let reads = 0;
  let readsFailed = 0;
  const over = new AbortController();
  const reading = (async () => {
    for (let turn = 0; !over.signal.aborted; turn++) {
      reads++;
      const first = await canRead(ground, repository, turn % 2);
      if (!first && !(await canRead(ground, repository, (turn + 1) % 2))) readsFailed++;
      await sleep(5);
    }
  })();
  const killed = kill();
  const startedMs = performance.now();
  const commit = emptyCommit(ref, []);
  const body = pushBody([{ ref, old: zeroOid, new: commit.oid }], [emptyTree, commit]);
  for (let turn = 0; ; turn++) {
    const agent = new Agent();
    const url = ground.httpUrl(turn % 2, repository);
    const verdict = await Promise.race([
      rawPush(url, body, { agent, refs: [ref] }).then((verdicts) => verdicts.get(ref)),
      sleep(tryTimeoutMs, undefined),
    ]);
    agent.destroy();
    if (verdict?.verdict === 'acknowledged') break;
    // An answer that was lost: whether it happened is seen by looking.
    const seen = await listRefs(ground.httpUrl((turn + 1) % 2, repository), new Agent()).catch(
      () => undefined,
    );
    if (seen?.get(ref) === commit.oid) break;
    await sleep(20);
  }
  const writeGapMs = performance.now() - startedMs;
  over.abort();
  await reading;
  await killed;
  return { writeGapMs, reads, readsFailed };
}

async function canRead(
  ground: ClusterScene,
  repository: string,
  frontEnd: number,
): Promise<boolean> {
  const agent = new Agent();
  try {
    const read = listRefs(ground.httpUrl(frontEnd, repository), agent);
    const found = await Promise.race([read, sleep(tryTimeoutMs, undefined)]);
    return found !== undefined;
  } catch {
    return false;
  } finally {
    agent.destroy();
  }
}
