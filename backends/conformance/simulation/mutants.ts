import { hangMutants } from './hang-mutants.js';
import { largeMutants } from './large-mutants.js';
import { membershipMutants } from './membership-mutants.js';
import { edit, type Mutation } from './mutation.js';
import { recoveryMutants } from './recovery-mutants.js';
import { unlockedMutants } from './unlocked-mutants.js';

/**
 * Ways to lose or fork data that docs/architecture.md answers: each breaks one of its answers. `npm run simulate --
 * --mutants` fails unless the simulation notices every one.
 */
export const mutants: readonly Mutation[] = [
  {
    name: 'the basis is not checked',
    troubles: ['store crashes at a step', 'front-end crashes at a message', 'bad network'],
    edits: [
      edit(
        'local/local-replica.js',
        String.raw`await this\.#advance\.upTo\(repository, request\.basis\);`,
        '',
      ),
    ],
  },
  {
    name: 'a store is prepared before the pack that came with that is on disk',
    troubles: ['store crashes at a step'],
    edits: [
      edit(
        'local/incoming-packs.js',
        String.raw`const unsynced = live\.indexed\?\.unsynced;`,
        'const unsynced = undefined;',
      ),
    ],
  },
  {
    name: 'commit without comparing the locks',
    troubles: ['pause under a lock'],
    edits: [
      edit(
        'replicated/commit-queue.js',
        String.raw`\.\.\.live\.flatMap\(\(\{ push \}\) => push\.held\.compares\),`,
        '',
      ),
    ],
  },
  {
    name: 'commit without comparing the epoch',
    from: 25,
    troubles: ['repository deleted under a lock'],
    edits: [
      edit(
        'replicated/commit-queue.js',
        String.raw`\{ key: keys\.repo\(id\), target: 'modRevision', op: '=', operand: state\.configRevision \},`,
        '',
      ),
      edit(
        'replicated/commit-queue.js',
        String.raw`if \(push\.configRevision === state\.configRevision\)`,
        'if (true)',
      ),
    ],
  },
  {
    name: 'a quarantine is dropped when the outcome is unknown',
    troubles: ['long outage', 'store crashes at a step'],
    edits: [
      edit(
        'replicated/push.js',
        String.raw`leaveQuarantine = asQuorateError\(error\)\.code === 'outcome-unknown';`,
        'leaveQuarantine = false;',
      ),
    ],
  },
  {
    name: 'the new name of a quarantine is not put on disk',
    troubles: ['store crashes at a step', 'store crashes'],
    edits: [
      edit(
        'local/quarantine.js',
        String.raw`needRoom, name, \{ do: 'overwrite'`,
        "needRoom, { do: 'overwrite'",
      ),
    ],
  },
  {
    name: 'a quarantine is dropped when the client leaves',
    from: 145,
    edits: [
      edit(
        'replicated/push.js',
        String.raw`const attendance = `,
        'request.signal.addEventListener("abort", () => abortUpload(dependencies, key, members ?? reachable(dependencies.replicas, repository.voters))); const attendance = ',
      ),
    ],
  },
  {
    name: 'an ambiguous commit is answered by a plain read',
    from: 100,
    troubles: ['bad network'],
    edits: [
      edit(
        'replicated/commit-queue.js',
        String.raw`else if \(found === 'not committed'\) \{`,
        "else if (typeof found === 'string') { push.held.released();",
      ),
      edit(
        'replicated/commit-queue.js',
        String.raw`compares: held\.compares, success: held\.deletes`,
        "compares: [{ key: 'never', target: 'version', op: '>', operand: 0 }], success: []",
      ),
    ],
  },
  {
    name: 'the log is trimmed before all have applied',
    edits: [edit('replicated/outbox.js', String.raw`if \(!\(await everywhere\)\)`, 'if (false)')],
  },
  {
    name: "the marker is written before the refs' fsync",
    edits: [
      edit(
        'git/ref-transaction.js',
        String.raw`if \(outcome\.type === 'applied'\)\s+await directories\.sync`,
        'if (false) await directories.sync',
      ),
      edit('git/ref-config.js', ',reference', ''),
    ],
  },
  {
    name: 'the marker is written before the refs',
    troubles: ['store crashes at a step'],
    edits: [
      edit(
        'local/open-repository.js',
        String.raw`await writeEffects\(dependencies, this\.id, effects\)`,
        'await dependencies.store.take([...begin, ...marker]); await writeEffects(dependencies, this.id, { ...effects, begin: [], end: [] })',
      ),
    ],
  },
  {
    name: 'the intent and the marker are not synced',
    edits: [edit('git/file-steps.js', String.raw`await file\.datasync\(\);`, '')],
  },
  {
    name: 'a replay insists on the old value',
    from: 370,
    troubles: ['store crashes at a step'],
    edits: [
      edit(
        'git/ref-transaction.js',
        String.raw`const expected = restarted \?`,
        'throw refsNotWritten(); const expected = restarted ?',
      ),
    ],
  },
  {
    name: 'locks of ancestors are skipped',
    from: 165,
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
    name: 'a lock that is given up is left to the lease',
    troubles: [],
    edits: [
      edit(
        'coordination/lock-janitor.js',
        String.raw`await deleteOwn\(this\.#coordinator, keys\);`,
        '',
      ),
    ],
  },
  {
    name: 'garbage collection ignores pins',
    from: 1398,
    troubles: ['maintenance'],
    edits: [edit('local/upkeep.js', String.raw`pinned: repository\.retained.*,`, 'pinned: [],')],
  },
  {
    name: 'a repack between promote and refs',
    from: 315,
    troubles: ['maintenance'],
    edits: [
      edit('local/quarantine.js', String.raw`\.\.\.indexes\.map\(keep\),`, ''),
      edit('git/maintenance.js', String.raw`'--cruft', '--cruft-expiration=never', `, ''),
    ],
  },
  {
    name: 'a strong read joins one in flight',
    troubles: ['slow network'],
    edits: [
      edit(
        'coordination/shared-reads.js',
        String.raw`this\.#next \?\?= this\.#afterwards\(this\.#onItsWay\);`,
        'return this.#onItsWay;',
      ),
    ],
  },
  {
    name: 'freshness is taken from a watch',
    troubles: ['watches lag'],
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
  {
    name: 'no new listing after a compaction',
    from: 775,
    troubles: ['compaction behind a cut', 'slow network'],
    edits: [
      edit(
        'coordination/lock-events.js',
        String.raw`subscriber\.onHistoryLost\(\);`,
        'void subscriber;',
      ),
    ],
  },
  {
    name: 'a rewound coordinator is accepted',
    troubles: ['coordinator restored at the end'],
    edits: [
      edit(
        'local/open-repository.js',
        String.raw`async #refuseRewound\(\) \{`,
        'async #refuseRewound() { return;',
      ),
      edit('coordination/guarded-coordinator.js', String.raw`frozen === undefined`, 'true'),
      edit(
        'coordination/guarded-coordinator.js',
        String.raw`!transaction\.failure\.every\(isRead\)`,
        'true',
      ),
    ],
  },
  {
    name: 'any store that answers is counted',
    troubles: ['disk lost', 'store crashes'],
    edits: [
      edit('replicated/quorum.js', String.raw`stores\.has\(storeId\) && state !== 'stale'`, 'true'),
    ],
  },
  {
    name: 'a reader is counted',
    troubles: ['store crashes', 'partition', 'disk lost'],
    edits: [
      edit(
        'replicated/push-upload.js',
        String.raw`gathered\(replicas, voters,`,
        'gathered(replicas, [...voters, ...(repository.readers ?? [])],',
      ),
      edit(
        'replicated/commit.js',
        String.raw`reachable\(dependencies\.replicas, voters\)`,
        'reachable(dependencies.replicas, [...voters, ...(record.readers ?? [])])',
      ),
      edit(
        'replicated/commit.js',
        String.raw`\.filter\(\(\{ storeId \}\) => voters\.some\(.*\)\);`,
        ';',
      ),
      edit(
        'replicated/quorum.js',
        String.raw`voters\.filter\(\(\{ storeId, state \}\) => stores\.has\(storeId\) && state !== 'stale'\)`,
        '[...stores]',
      ),
    ],
  },
  {
    name: 'strong shrinks to the stores that answer',
    troubles: ['disk lost', 'store crashes'],
    edits: [
      edit(
        'replicated/quorum.js',
        String.raw`state !== undefined \|\| stores\.has\(storeId\)`,
        'true',
      ),
    ],
  },
  {
    name: 'a learner becomes a voter before it is filled',
    troubles: ['disk lost', 'store crashes'],
    edits: [
      edit('replicated/reconcile.js', String.raw`if \(!isCounted\(view, store\)\)`, 'if (false)'),
      edit(
        'replicated/set-steps.js',
        String.raw`await fill\(dependencies, ground, \{ storeId, fresh: false \}, signal\);`,
        '',
      ),
      edit(
        'replicated/set-steps.js',
        String.raw`state\?\.generation !== head\.generation \|\| state\.digest !== head\.digest`,
        'false',
      ),
    ],
  },
  {
    name: 'objects on the disk are not read again',
    troubles: ['flipped bits'],
    edits: [
      edit(
        'replicated/scrub.js',
        String.raw`const \{ problems \} = await .*;`,
        'const problems = [];',
      ),
    ],
  },
  {
    name: 'refs on the disk are not compared with their digest',
    troubles: ['flipped bits', 'store crashes'],
    edits: [
      edit('local/load-repository.js', String.raw`digest !== known`, 'false'),
      edit('local/verify-copy.js', String.raw`found === known \|\| interrupted`, 'true'),
    ],
  },
  {
    name: 'a damaged copy stays a voter',
    troubles: ['flipped bits', 'store crashes'],
    edits: [edit('replicated/reconcile.js', String.raw`setAsideDamaged\(view, limits\) \?\?`, '')],
  },
  {
    name: 'a ref that is neither old nor new is taken for the fault of a push',
    from: 130,
    troubles: ['flipped bits', 'pause'],
    edits: [edit('local/frozen.js', String.raw`code !== 'failed-precondition'`, 'true')],
  },
  {
    name: 'placement takes no heed of zones',
    from: 24,
    edits: [edit('replicated/placement.js', String.raw`&& !zones\.has\(node\.zone\)`, '')],
  },
  {
    name: 'a read at eventual takes no heed of its token',
    troubles: ['slow network', 'partition', 'store crashes'],
    edits: [edit('replicated/read-path.js', String.raw`generation: atLeast,`, 'generation: 0,')],
  },
  {
    name: 'a copy that is only begun is read',
    troubles: ['past reads', 'repository moves'],
    edits: [edit('local/open-repository.js', String.raw`if \(!this\.begun\)\s+return;`, 'return;')],
  },
  {
    name: 'every read is one at eventual',
    troubles: ['slow network'],
    edits: [
      edit(
        'replicated/read-path.js',
        String.raw`this\.#readsEventually\(re(?:pository|cord)\)`,
        'true',
      ),
    ],
  },
  {
    name: 'LMDB: acknowledged before it is flushed',
    troubles: ['one machine'],
    edits: [
      edit(
        'coordination/embedded/store.js',
        String.raw`overlappingSync: false`,
        'overlappingSync: true',
      ),
    ],
  },
  {
    name: 'a name leads to the repository that had it last',
    troubles: ['names'],
    edits: [
      edit(
        'replicated/registry.js',
        String.raw`const id = this\.#decodePointer\(pointer\);`,
        'const id = guess ?? this.#decodePointer(pointer);',
      ),
      edit('replicated/registry.js', String.raw` \|\| record\.name !== name`, ''),
    ],
  },
  {
    name: 'a name is given although somebody has it',
    troubles: ['names', 'slow network'],
    edits: [edit('replicated/registry.js', String.raw`\.\.\.nameFree\(name\), `, '')],
  },
  {
    name: 'a fork borrows from a pool that does not have it all',
    troubles: ['forks'],
    edits: [
      edit('local/object-pools.js', String.raw`await linkObjects\(objectsDirectory, pool\);`, ''),
    ],
  },
  {
    name: 'objects are in a pool before that is certain',
    troubles: ['forks', 'store crashes'],
    edits: [edit('git/link-objects.js', String.raw`await syncDirectory\(target\);`, '')],
  },
  {
    name: 'a pool goes while somebody borrows from it',
    troubles: ['forks'],
    edits: [
      edit(
        'replicated/pools.js',
        String.raw`await replica\.leavePool\(id, poolId\)\.catch\(unlessAbsent\);`,
        '',
      ),
      edit(
        'local/object-pools.js',
        String.raw`of await this\.#dependencies\.store\.borrowers\(poolId\)`,
        'of []',
      ),
    ],
  },
  {
    name: 'a pool stays when nobody shares it',
    troubles: ['forks'],
    edits: [edit('replicated/pools.js', String.raw`if \(entries\.length > 1\)`, '')],
  },
  {
    name: 'absence is taken for deletion',
    from: 25,
    troubles: ['compaction'],
    edits: [
      edit(
        'local/open-repository.js',
        String.raw`const head = await this\.#dependencies\.log\.head\(this\.id\);`,
        `const head = await this.#dependencies.log.head(this.id).catch(async (error) => {
          await this.#dependencies.store.destroy(this.id);
          throw error;
        });`,
      ),
    ],
  },
  ...unlockedMutants,
  ...largeMutants,
  ...membershipMutants,
  ...recoveryMutants,
  ...hangMutants,
];
