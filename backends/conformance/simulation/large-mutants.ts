import { edit, type Mutation } from './mutation.js';

const large = 'large pushes';

/** Those of `mutants` that are about pushes whose updates are too large for the log. */
export const largeMutants: readonly Mutation[] = [
  {
    name: 'large pushes: updates that come without a pack are kept without a mark',
    troubles: [large],
    edits: [edit('local/kept-updates.js', String.raw`if \(known !== undefined\)`, 'if (false)')],
  },
  {
    name: 'large pushes: a store that knows no more of the push is counted',
    troubles: [large],
    edits: [
      edit(
        'local/kept-updates.js',
        String.raw`if \(known === undefined && .*\) \{`,
        'if (false) {',
      ),
    ],
  },
  {
    name: 'large pushes: one that too few stores keep is committed',
    troubles: [large, 'store crashes', 'partition'],
    edits: [
      edit(
        'replicated/stored-updates.js',
        String.raw`first !== undefined && suffices\(.*\)\) \{`,
        'first !== undefined) {',
      ),
    ],
  },
];
