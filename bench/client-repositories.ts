import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { git } from './commands.js';
import type { Place } from './case.js';

/** A bare repository that borrows its objects from another one and has `main` at some commit: made in no time. */
export async function prepareClient(
  path: string,
  { base, tip }: { readonly base: string; readonly tip: string },
): Promise<void> {
  await git(['init', '--quiet', '--bare', '-b', 'main', path]);
  await writeFile(join(path, 'objects/info/alternates'), `${join(base, 'objects')}\n`);
  await git(['update-ref', 'refs/heads/main', tip], { cwd: path });
  // A client that tidies up in the background would disturb what is measured next.
  await git(['config', 'gc.auto', '0'], { cwd: path });
  await git(['config', 'maintenance.auto', 'false'], { cwd: path });
}

/** Gives a client a commit that nobody else has, on a branch of its own. */
export async function addOwnCommit(path: string, message: string): Promise<void> {
  const args = ['commit-tree', '-p', 'refs/heads/main', '-m', message, 'refs/heads/main^{tree}'];
  const oid = await git(args, { cwd: path });
  await git(['update-ref', 'refs/heads/own', oid], { cwd: path });
}

/** Commits to push, made before anything is measured. */
export interface Commits {
  readonly repository: string;
  /** Those of a round, each the child of the one before; of the first round, the first is a child of `HEAD`. */
  of(chain: number, round: number): readonly string[];
}

/** Chains of commits on top of `HEAD`, each of which changes one file. */
export async function prepareCommits(
  { fixture, directory, rounds }: Place,
  { chains, perRound }: { readonly chains: number; readonly perRound: number },
): Promise<Commits> {
  const repository = join(directory, 'work.git');
  const tip = await git(['rev-parse', 'HEAD'], { cwd: fixture.path });
  await prepareClient(repository, { base: fixture.path, tip });
  const commands: string[] = [];
  const perChain = rounds * perRound;
  for (let chain = 0; chain < chains; chain++) {
    for (let index = 0; index < perChain; index++) {
      const content = `${chain} ${index}\n`.repeat(40);
      commands.push(
        `commit refs/heads/chain-${chain}`,
        `committer Bench <bench@example.org> ${1_800_000_000 + index} +0000`,
        `data 7\nChange\n`,
        ...(index === 0 ? [`from ${tip}`] : []),
        `M 100644 inline pushed/${chain}.txt`,
        `data ${content.length}\n${content}`,
      );
    }
  }
  const input = `${commands.join('\n')}\ndone\n`;
  await git(['fast-import', '--quiet', '--done'], {
    cwd: repository,
    input,
  });
  const list = Array.from({ length: chains }, (_, chain) => `refs/heads/chain-${chain}`);
  const oids: (readonly string[])[] = [];
  for (const ref of list) {
    const lines = await git(['rev-list', '--reverse', `${tip}..${ref}`], { cwd: repository });
    oids.push(lines.split('\n'));
  }
  return {
    repository,
    of: (chain, round) => {
      const found = (oids[chain] ?? []).slice(round * perRound, (round + 1) * perRound);
      if (found.length !== perRound) throw new Error('more rounds than there are commits');
      return found;
    },
  };
}
