import { edit, type Mutation } from './mutation.js';

/** Waits for a store whose disk hangs: each lacks its bound, and one hanging disk keeps everybody from what others have. */
export const hangMutants: readonly Mutation[] = [
  {
    name: 'a read waits for a disk that hangs',
    troubles: ['disk hangs'],
    edits: [
      edit(
        'replicated/reads.js',
        String.raw`await this\.#inTime\(first, over\.signal\)`,
        'await first',
      ),
    ],
  },
  {
    name: 'a report waits for a disk that hangs',
    troubles: ['disk hangs'],
    edits: [
      edit(
        'replicated/commit.js',
        String.raw`const applyPatienceMs = 3_000;`,
        'const applyPatienceMs = 3_000_000;',
      ),
    ],
  },
  {
    name: 'a push waits for a disk that hangs, though enough others are prepared',
    troubles: ['disk hangs'],
    edits: [
      edit(
        'replicated/prepare.js',
        String.raw`clock\.sleep\(graceMs, grace\.signal\)`,
        'new Promise(() => undefined)',
      ),
    ],
  },
  {
    name: 'a stream that too few can take waits for disks that hang',
    troubles: ['disk hangs'],
    edits: [
      edit('replicated/fan-out.js', String.raw`waitedFor\.every\(`, 'false && waitedFor.every('),
    ],
  },
];
