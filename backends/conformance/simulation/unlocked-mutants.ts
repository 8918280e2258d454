import { edit, type Mutation } from './mutation.js';

/** Ways to lose or fork data by pushes that take no locks: what their commit compares, and what proves it over. */
export const unlockedMutants: readonly Mutation[] = [
  {
    name: 'without locks: built upon another head than it was judged at',
    troubles: ['slow network'],
    edits: [
      edit(
        'replicated/commit-queue.js',
        String.raw`race === 0 && exactHead\.headRevision === state\.headRevision`,
        'true',
      ),
      edit(
        'replicated/without-locks.js',
        String.raw`\{ key: keys\.head\(record\.id\), target: 'value', op: '=', operand: headValue \},`,
        '',
      ),
    ],
  },
  {
    name: 'without locks: committed over the locks of others',
    troubles: ['slow network'],
    edits: [
      edit(
        'replicated/without-locks.js',
        String.raw`\.\.\.locks\.nothingInTheWay\(record\.id, refs\),`,
        '',
      ),
    ],
  },
  {
    name: 'without locks: committed without the lease',
    troubles: ['stores restart while a push stands still', 'slow network'],
    edits: [
      edit(
        'replicated/without-locks.js',
        String.raw`\{ key, target: 'createRevision', op: '=', operand: createRevision \},\s+\{ key: fence\.key, target: 'createRevision', op: '=', operand: fenceRevision \},`,
        '',
      ),
    ],
  },
  {
    name: 'without locks: an ambiguous commit is answered by a plain read',
    from: 1595,
    troubles: ['bad network'],
    edits: [
      edit(
        'replicated/commit-queue.js',
        String.raw`return closingOff\(this\.#repositoryId, exactHead\);`,
        "return { compares: [{ key: 'never', target: 'version', op: '>', operand: 0 }], success: [] };",
      ),
      edit(
        'replicated/commit-queue.js',
        String.raw`if \(found === 'not committed' && isOver\)`,
        "if (found === 'not committed' && push.exactHead) { fail(new QuorateError('aborted', 'not seen')); return; } if (isOver)",
      ),
    ],
  },
  {
    name: 'without locks: a commit that is closed off leaves the head as it is',
    from: 1595,
    troubles: ['bad network'],
    edits: [
      edit(
        'replicated/without-locks.js',
        String.raw`success: \[\{ type: 'put', key, value: headValue \}\]`,
        'success: []',
      ),
      edit(
        'replicated/commit-queue.js',
        String.raw`if \(succeeded && !isOver\) \{\s+push\.held`,
        "if (succeeded && push.exactHead) { fail(new QuorateError('aborted', 'closed off')); return; } if (succeeded) { push.held",
      ),
    ],
  },
  {
    name: 'without locks: a quarantine goes while its push may be committed',
    from: 155,
    troubles: ['stores restart while a push stands still', 'slow network'],
    edits: [
      edit(
        'replicated/settle-quarantines.js',
        String.raw`if \(headRevision === undefined\)`,
        'if (headRevision !== undefined) return true; if (headRevision === undefined)',
      ),
    ],
  },
];
