/**
 * A server to be killed: runs git commands that never end by themselves and says so. Started by `runner.test.ts` with
 * a run directory, a repository with a large blob, and a marker for the environment of what it starts.
 */
import { createGitRunner } from '../runner.js';
import { noMeter, quietLogger } from './repository.js';

const [runDirectory = '', gitDir = '', blob = '', marker = ''] = process.argv.slice(2);
const git = await createGitRunner({ logger: quietLogger, meter: noMeter, runDirectory });
const env = { GIT_DIR: gitDir, QUORATE_TEST_MARKER: marker };
// One that is blocked on its output, one on its input, and a tree that talks to nobody.
await git.stream({ args: ['cat-file', 'blob', blob], env });
await git.converse({ args: ['update-ref', '--stdin'], env });
await git.stream({ args: ['wait'], env, config: { 'alias.wait': '!sleep 1000 & sleep 1000' } });
process.stdout.write('ready\n');
