import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { writeCommandList } from '../wire/command-list.js';
import { acceptAll, FakeService, oidOf } from './fake-service.js';

// A session pushes to the repository that it was opened on.

for (const { desc, directory, isPushed } of [
  { desc: 'is the same', directory: '1-1', isPushed: true },
  { desc: 'is another one of its name', directory: '2-2', isPushed: false },
]) {
  test(`a push whose repository ${desc} when its commands come is ${isPushed ? 'taken' : 'refused'}`, async () => {
    const client = new PassThrough();
    const fake = new FakeService({ push: acceptAll });
    fake.setDirectory('1-1');
    const talking = fake.talk({ service: 'git-receive-pack', mode: 'session' }, client);
    while (fake.sessions === 0 && client.listenerCount('readable') === 0) {
      await new Promise(setImmediate);
    }
    fake.setDirectory(directory);
    client.end(
      writeCommandList({
        commands: [{ oldOid: oidOf('a'), newOid: oidOf('0'), ref: 'refs/heads/old' }],
        capabilities: [{ name: 'report-status' }],
        shallow: [],
      }),
    );
    const { output } = await talking;
    assert.equal(fake.pushed.length, isPushed ? 1 : 0);
    if (!isPushed) assert.match(output.toString(), /not found/);
  });
}
