import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeptStores } from './kept-stores.js';
import type { ObjectStore } from './library.js';

interface Opened extends ObjectStore {
  readonly objectsDir: string;
  readonly open: boolean;
}

function makeStores() {
  const opened: Opened[] = [];
  const clock = { nowMs: 0 };
  const stores = new KeptStores({
    nowMs: () => clock.nowMs,
    open: (objectsDir) => {
      let open = true;
      const store: Opened = {
        objectsDir,
        get open() {
          return open;
        },
        indexPack: () => undefined,
        header: () => undefined,
        read: () => assert.fail('nothing is read'),
        close: () => {
          assert.ok(open, 'closed twice');
          open = false;
        },
      };
      opened.push(store);
      return store;
    },
  });
  return { stores, opened, clock };
}

test('a store stays open for a minute, also when it is used all the time', () => {
  const { stores, opened, clock } = makeStores();
  const first = stores.get('a');
  clock.nowMs = 60_000;
  assert.equal(stores.get('a'), first);
  clock.nowMs = 60_001;
  assert.notEqual(stores.get('a'), first);
  assert.deepEqual(
    opened.map(({ open }) => open),
    [false, true],
  );
});

test('the one that was not used for longest makes room', () => {
  const { stores, opened } = makeStores();
  stores.get('first');
  stores.get('second');
  for (let n = 2; n < 128; n++) stores.get(String(n));
  assert.ok(opened.every(({ open }) => open));
  stores.get('first');
  stores.get('another');
  assert.equal(stores.size, 128);
  const closed = opened.filter(({ open }) => !open);
  assert.deepEqual(
    closed.map(({ objectsDir }) => objectsDir),
    ['second'],
  );
});

test('one that was dropped, and all when the process is large, are opened anew', () => {
  const { stores, opened } = makeStores();
  stores.get('a');
  stores.get('b');
  stores.drop('a');
  stores.drop('absent');
  assert.deepEqual(
    opened.map(({ open }) => open),
    [false, true],
  );
  stores.trim(1024);
  assert.equal(stores.size, 1);
  stores.trim(200 * 1024 ** 2);
  assert.equal(stores.size, 0);
  assert.ok(opened.every(({ open }) => !open));
});
