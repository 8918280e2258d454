/** What git index-pack says, and what of it is the pack's own words. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createPackIndexer } from './indexer.js';
import type { PackIndexer } from './pack-indexer.js';
import { createGitRunner } from './runner.js';
import { buildPack, copyDelta, objectId } from './testing/build-pack.js';
import { createFixture, idleMeter, silentLogger, type Fixture } from './testing/indexer-fixture.js';
import { limitGit } from './testing/limited-git.js';

let fixture: Fixture;
let gitOnly: PackIndexer;

before(async () => {
  fixture = await createFixture();
  const { git } = fixture;
  gitOnly = await createPackIndexer({ git, logger: silentLogger, meter: idleMeter, workers: 0 });
});

after(async () => {
  await gitOnly.close();
  await fixture.close();
});

function commit(files: Record<string, string>): string {
  const entries = Object.entries(files).map(
    ([name, content]) => `100644 blob ${fixture.write('blob', content)}\t${name}\n`,
  );
  const tree = fixture.run(['mktree'], entries.join('')).toString().trim();
  return fixture.run(['commit-tree', tree, '-m', 'x']).toString().trim();
}

function packObjects(options: string[], input: string): Buffer {
  return fixture.run(['pack-objects', '--stdout', '-q', ...options], input);
}

const packed = (tip: string): Buffer => packObjects(['--revs'], `${tip}\n`);

test('what it says itself is not taken for words of the machine', async () => {
  for (const end of [
    ': Permission denied',
    '\\nfatal: x: Too many open files',
    ': out of memory at all',
    ': Cannot allocate memory',
    '\\nfatal: Out of memory, malloc failed (tried to allocate 10 bytes)',
  ]) {
    const config = `[submodule "a"]\n\tpath = a\n\turl = "-x${end}"\n`;
    const tip = commit({ '.gitmodules': config });
    const ending = await fixture.index(gitOnly, packed(tip));
    assert.equal(ending.code, 'invalid-argument', `${end}: ${ending.message}`);
  }
  const tag = fixture.write(
    'tag',
    `object ${fixture.write('blob', 'x')}\ntype blob\ntag a: Permission denied\ntagger A <a@example.org> 1 +0000\n\n`,
  );
  const tip = commit({ '.gitmodules': '[submodule "a"]\n\tpath = a\n\turl = "-x"\n' });
  const ending = await fixture.index(
    gitOnly,
    packObjects([], `${tag}\n${fixture.run(['rev-list', '--objects', tip]).toString()}`),
  );
  assert.equal(ending.code, 'invalid-argument', ending.message);
});

/** 16 MiB of zeros, and a delta that repeats them 120 times: nearly 2 GB, from 16 KB. */
function growingPack(): Buffer {
  const content = Buffer.alloc(0xff_ffff);
  const [baseBytes, times] = [content.length, 120];
  const resultBytes = baseBytes * times;
  const delta = copyDelta({ baseBytes, resultBytes, copyBytes: baseBytes, times });
  const base = objectId('blob', content);
  return buildPack([
    { type: 'blob', content },
    { type: 'ref-delta', base, delta },
  ]);
}

test('a pack that git has too little memory for is not called bad: the limit is named, and what to do', async () => {
  const { git } = fixture;
  const indexers = [
    {
      says: /^to index .*, 1280 MiB \(of a pack of up to 4 MiB, .*\); .* git -c pack\.depth=0 push$/,
    },
    { gitMemoryBytes: 300 * 1024 ** 2, says: /, 300 MiB \(limits\.indexMemory\); / },
    {
      gitMemoryBytes: 300 * 1024 ** 2,
      smallPackBytes: 1,
      says: /, 300 MiB \(limits\.indexMemory\); /,
    },
  ];
  for (const { says, ...options } of indexers) {
    const indexer = await createPackIndexer({
      git,
      logger: silentLogger,
      meter: idleMeter,
      workers: 0,
      ...options,
    });
    try {
      const ending = await fixture.index(indexer, growingPack());
      assert.equal(ending.code, 'resource-exhausted', ending.message);
      assert.match(ending.message ?? '', says);
      assert.deepEqual(ending.files, []);
    } finally {
      await indexer.close();
    }
  }
});

test('what git says of the machine behind its progress is no fault of the pack', async () => {
  const limited = limitGit();
  const git = await createGitRunner({ logger: silentLogger, meter: idleMeter, helpers: 1 });
  const short = await createPackIndexer({
    git,
    logger: silentLogger,
    meter: idleMeter,
    workers: 0,
  });
  try {
    const said = 'Receiving objects:  50%% (1/2)\\rfatal: cannot open x: Too many open files\\n';
    limited.limit('index-pack', `cat >/dev/null; printf '${said}' >&2; exit 128`);
    const ending = await fixture.index(short, packed(commit({ f: 'x' })));
    assert.equal(ending.code, 'storage-failure', ending.message);
  } finally {
    await short.close();
    await git.close();
    limited.remove();
  }
});
