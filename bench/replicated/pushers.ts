import { Agent } from 'node:http';
import { emptyCommit, emptyTree, pushBody, rawPush } from '../../e2e/checker/raw-git.js';
import { zeroOid } from '../../e2e/checker/push-journal.js';

/** Pushes commits to one branch of its own over a kept connection, speaking the protocol itself. */
export class RawPusher {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  readonly #ref: string;
  readonly #name: string;
  #tip = zeroOid;
  #count = 0;

  constructor(name: string) {
    this.#name = name;
    this.#ref = `refs/heads/${name}`;
  }

  /** True when it was acknowledged. After an unclear answer the next push finds out by what it is refused. */
  async push(url: string): Promise<boolean> {
    const parents = this.#tip === zeroOid ? [] : [this.#tip];
    const commit = emptyCommit(`${this.#name} ${this.#count++}`, parents);
    const body = pushBody(
      [{ ref: this.#ref, old: this.#tip, new: commit.oid }],
      [emptyTree, commit],
    );
    const verdicts = await rawPush(url, body, { agent: this.#agent, refs: [this.#ref] });
    if (verdicts.get(this.#ref)?.verdict !== 'acknowledged') return false;
    this.#tip = commit.oid;
    return true;
  }

  close(): void {
    this.#agent.destroy();
  }
}

export interface Throughput {
  readonly pushes: number;
  readonly perSecond: number;
  readonly failed: number;
}

/**
 * Pushes from `connections` at once for some time, each to branches of its own. With more URLs than connections each
 * goes round its share of them.
 */
export async function pushFor(
  urls: readonly string[],
  { connections, durationMs }: { readonly connections: number; readonly durationMs: number },
): Promise<Throughput> {
  const startedMs = performance.now();
  let pushes = 0;
  let failed = 0;
  await Promise.all(
    Array.from({ length: connections }, async (_, index) => {
      const share = urls.filter((_url, at) => at % connections === index % urls.length);
      const lanes = share.map((url, lane) => ({
        url,
        pusher: new RawPusher(`bench-${process.pid}-${Math.round(startedMs)}-${index}-${lane}`),
      }));
      for (let turn = 0; performance.now() - startedMs < durationMs; turn++) {
        const lane = lanes[turn % lanes.length];
        if (lane === undefined) return;
        if (await lane.pusher.push(lane.url)) pushes++;
        else failed++;
      }
      for (const { pusher } of lanes) pusher.close();
    }),
  );
  const seconds = (performance.now() - startedMs) / 1000;
  return { pushes, failed, perSecond: pushes / seconds };
}
