import { Agent } from 'node:http';
import type { Scene } from '../harness.js';
import type { PushJournal, Verdict } from './push-journal.js';
import { zeroOid } from './push-journal.js';
import type { PushPlan, PushPlanner } from './push-plan.js';
import { listRefs, packOf, pushBody, rawPush } from './raw-git.js';

/** Pushes what a planner thinks of, and records each verdict. */
export interface PushClient {
  readonly planner: PushPlanner;
  push(): Promise<void>;
  close(): void;
}

interface ClientOptions {
  readonly name: string;
  readonly planner: PushPlanner;
  readonly journal: PushJournal;
  /** URL of a repository, with credentials. */
  readonly urlOf: (repository: string) => string;
  /** Told why a push was refused. */
  readonly refused?: (reason: string) => void;
}

type Verdicts = ReadonlyMap<string, { readonly verdict: Verdict; readonly reason: string }>;

function record(
  { name, planner, journal, refused }: ClientOptions,
  plan: PushPlan,
  verdicts: Verdicts,
): void {
  const of = (ref: string): Verdict => verdicts.get(ref)?.verdict ?? 'unknown';
  planner.settle(plan, of);
  journal.add({
    client: name,
    repository: plan.repository,
    atomic: plan.atomic,
    updates: plan.moves.map((move) => ({ ...move, verdict: of(move.ref) })),
  });
  for (const { verdict, reason } of verdicts.values()) if (verdict === 'refused') refused?.(reason);
}

/** Speaks the protocol itself over kept connections: many pushes a second. */
export function createRawClient(options: ClientOptions): PushClient {
  const { planner, urlOf } = options;
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  return {
    planner,
    async push() {
      const plan = planner.next();
      const refs = plan.moves.map(({ ref }) => ref);
      const body = pushBody(plan.moves, plan.objects, plan);
      const url = urlOf(plan.repository);
      const verdicts = await rawPush(url, body, { agent, refs });
      record(options, plan, verdicts);
      // A lost race: look who won, as people do with fetch.
      if (![...verdicts.values()].some(({ verdict }) => verdict === 'refused')) return;
      const seen = await listRefs(url, agent).catch(() => undefined);
      const shared = seen?.get('refs/heads/shared');
      if (shared !== undefined)
        planner.see(plan.repository, new Map([['refs/heads/shared', shared]]));
    },
    close: () => agent.destroy(),
  };
}

/** Real `git push`. */
export async function createGitClient(
  options: ClientOptions & {
    readonly scene: Scene;
    readonly env?: Readonly<Record<string, string>>;
  },
): Promise<PushClient> {
  const { scene, name, planner, urlOf, env } = options;
  const cwd = scene.path('work', `client-${name}`);
  await scene.git(['init', '-q', '--bare', cwd]);
  return {
    planner,
    async push() {
      const plan = planner.next();
      await scene.git(['unpack-objects', '-q'], { cwd, stdin: packOf(plan.objects) });
      const specs = plan.moves.map(({ ref, new: value }) =>
        value === zeroOid ? `:${ref}` : `${plan.forced.has(ref) ? '+' : ''}${value}:${ref}`,
      );
      const result = await scene.tryGit(
        [
          'push',
          '--porcelain',
          ...(plan.atomic ? ['--atomic'] : []),
          urlOf(plan.repository),
          ...specs,
        ],
        { cwd, timeoutMs: 60_000, ...(env === undefined ? {} : { env }) },
      );
      record(options, plan, porcelainVerdicts(result.stdout, plan));
    },
    close: () => undefined,
  };
}

/** git-push(1), "Output": `<flag> TAB <from>:<to> TAB <summary> (<reason>)`, the reason in parentheses. */
export function porcelainVerdicts(stdout: string, plan: PushPlan): Verdicts {
  const verdicts = new Map<string, { verdict: Verdict; reason: string }>();
  for (const line of stdout.split('\n')) {
    const [flag = '', pair = '', summary = ''] = line.split('\t');
    const ref = pair.slice(pair.lastIndexOf(':') + 1);
    if (!plan.moves.some((move) => move.ref === ref)) continue;
    if (flag !== '!') verdicts.set(ref, { verdict: 'acknowledged', reason: '' });
    // git's own words for a report that did not come; every other `!` is a refusal.
    else if (!summary.startsWith('[remote failure]')) {
      verdicts.set(ref, { verdict: 'refused', reason: summary });
    }
  }
  return verdicts;
}
