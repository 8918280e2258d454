import {
  away,
  behind,
  frozen,
  sound,
  testScenes,
  three,
  unfilled,
} from './testing/reconcile-scenes.js';

/** Copies that are only read: they come and go last, and count for nothing. */
testScenes([
  {
    desc: 'a reader that cannot be filled holds up no other one',
    stores: { ...three, r1: unfilled(10), r2: behind },
    declared: { r1: 'stale', r2: 'stale' },
    wantedReaders: 2,
    step: { type: 'fill', storeId: 'r2', fresh: false },
  },
  {
    desc: 'read much: a reader',
    stores: three,
    wantedReaders: 1,
    step: { type: 'add-reader' },
  },
  {
    desc: 'a reader is filled before it is read',
    stores: { ...three, r: behind },
    declared: { r: 'stale' },
    wantedReaders: 1,
    step: { type: 'fill', storeId: 'r', fresh: false },
  },
  {
    desc: 'a reader that is filled may be read',
    stores: { ...three, r: sound },
    declared: { r: 'stale' },
    wantedReaders: 1,
    step: { type: 'declare', storeId: 'r', state: undefined },
  },
  {
    desc: 'a reader that is behind holds up nothing',
    stores: { ...three, r: behind },
    wantedReaders: 1,
    logLength: 1_000,
    step: undefined,
  },
  {
    desc: 'calm again: the last reader goes',
    stores: { ...three, r1: sound, r2: sound },
    wantedReaders: 1,
    step: { type: 'drop-reader', storeId: 'r2' },
  },
  {
    desc: 'a reader that is away is given up at once',
    stores: { ...three, r: away(1_000) },
    wantedReaders: 1,
    step: { type: 'drop-reader', storeId: 'r' },
  },
  {
    desc: 'a frozen reader goes; it is no voter to be healed',
    stores: { ...three, r: frozen },
    wantedReaders: 1,
    step: { type: 'drop-reader', storeId: 'r' },
  },
  {
    desc: 'a reader whose node is to leave goes',
    stores: { ...three, r: { ...sound, leaving: true } },
    wantedReaders: 1,
    step: { type: 'drop-reader', storeId: 'r' },
  },
  {
    desc: 'first the voters: a reader is no copy',
    stores: { a: sound, b: sound, r: sound },
    wantedReaders: 1,
    step: { type: 'add-learner' },
  },
  {
    desc: 'a reader does not make up for a voter that would be missed',
    stores: { a: sound, b: behind, c: { ...behind, leaving: true }, l: sound, r: sound },
    wantedReaders: 1,
    step: undefined,
  },
]);
