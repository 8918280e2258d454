import type { Mutation } from './mutation.js';

/**
 * Ways to lose or fork data that docs/architecture.md answers: each breaks one of its answers. `npm run simulate --
 * --mutants` fails unless the simulation notices every one.
 */
export const mutants: readonly Mutation[] = [
  {
    name: 'the basis is not checked',
    edits: [
      edit(
        'local/local-replica.js',
        String.raw`await this\.#applyUpTo\(repository, request\.basis\);`,
        '',
      ),
    ],
  },
  {
    name: 'a quarantine is dropped when the client leaves',
    edits: [
      edit(
        'replicated/push.js',
        String.raw`const attendance = `,
        'request.signal.addEventListener("abort", () => abortUpload(dependencies, key, members ?? [])); const attendance = ',
      ),
    ],
  },
  {
    name: 'an ambiguous commit is answered by a plain read',
    edits: [
      edit(
        'replicated/commit-queue.js',
        String.raw`if \(entry === undefined\)\s+throw unknownOutcome\(\);`,
        "if (entry === undefined) { push.held.released(); settle({ status: 'lost-lock' }); return; }",
      ),
      edit(
        'replicated/commit-queue.js',
        String.raw`compares: push\.held\.compares,\s+success: push\.held\.deletes,`,
        "compares: [{ key: 'never', target: 'version', op: '>', operand: 0 }], success: [],",
      ),
    ],
  },
  {
    name: 'the log is trimmed before all have applied',
    edits: [edit('replicated/outbox.js', String.raw`if \(await everywhere\)`, 'if (true)')],
  },
  {
    name: "the marker is written before the refs' fsync",
    edits: [
      edit(
        'git/ref-transaction.js',
        String.raw`if \(outcome === 'applied'\)\s+await sync`,
        'void ',
      ),
      edit('git/ref-config.js', ',reference', ''),
    ],
  },
  {
    name: 'the marker is written before the refs',
    edits: [
      edit(
        'local/open-repository.js',
        String.raw`await writeEffects\(dependencies, this\.id, \{ intent, keeps: this\.#keeps \}\);`,
        'await writeMarker(dependencies, this.id, this.#state, intent); await writeEffects(dependencies, this.id, { intent, keeps: this.#keeps });',
      ),
    ],
  },
  {
    name: 'a replay insists on the old value',
    edits: [edit('local/apply-entries.js', String.raw`refs\.commitEither`, 'refs.commit')],
  },
  {
    name: 'locks of ancestors are skipped',
    edits: [
      edit('coordination/lock-plan.js', String.raw`, \.\.\.wanted\.flatMap\(ancestors\)`, ''),
      edit(
        'coordination/lock-plan.js',
        String.raw`\.\.\.lockKeys\.map\(\(key\) => emptyPrefix\(.*\)\),`,
        '',
      ),
      edit('coordination/lock-plan.js', String.raw` \|\| above\.has\(ref\) \|\| .*\);`, ');'),
    ],
  },
  {
    name: 'freshness is taken from a watch',
    edits: [
      edit(
        'replicated/coordinator-log.js',
        String.raw`const kv = await coordinator\.get\(keys\.head\(repositoryId\)\);`,
        `const watched = this.watched ??= new Map();
        let kv = watched.get(repositoryId);
        if (kv === undefined) {
          kv = await coordinator.get(keys.head(repositoryId));
          watched.set(repositoryId, kv);
          void (async () => {
            try {
              const options = { fromRevision: kv.modRevision + 1, signal: new AbortController().signal };
              for await (const { events } of coordinator.watch(keys.head(repositoryId), options)) {
                for (const event of events) {
                  if (event.type === 'put') watched.set(repositoryId, event.entry);
                  else watched.delete(repositoryId);
                }
              }
            } catch { watched.delete(repositoryId); }
          })();
        }`,
      ),
    ],
  },
];

function edit(file: string, pattern: string, replacement: string): Mutation['edits'][number] {
  return { file: `backends/${file}`, pattern, replacement };
}
