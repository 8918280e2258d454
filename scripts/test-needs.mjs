// Sees to it that the programs and libraries that tests use are there: as root where there is apt-get it installs what
// is missing, elsewhere it names it. Nothing is skipped for want of a program.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const testNeeds = JSON.parse(readFileSync(new URL('test-needs.json', import.meta.url), 'utf8'));

/** True when everything is there (now). */
export function provideNeeds({ needs = testNeeds, purpose = 'the tests' } = {}) {
  let missing = needs.filter((need) => !present(need));
  if (missing.length === 0) return true;
  const canInstall = process.getuid?.() === 0 && present({ probe: ['apt-get', '--version'] });
  if (canInstall) {
    console.log(`installing for ${purpose}: ${missing.map(({ need }) => need).join(', ')}`);
    const apt = (...args) => run('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=300', ...args]);
    apt('update');
    const packages = new Set(missing.map(packageOf).filter((name) => name !== undefined));
    apt('install', '-y', '--no-install-recommends', '--', ...packages);
    missing = missing.filter((need) => !present(need));
  }
  for (const need of missing) {
    console.error(
      `missing for ${purpose}: ${need.need} (Debian package ${need.apt ?? need.aptPattern})`,
    );
  }
  return missing.length === 0;
}

function present({ probe, library }) {
  if (library !== undefined) {
    for (const ldconfig of ['/sbin/ldconfig', 'ldconfig']) {
      const { status, stdout } = spawnSync(ldconfig, ['-p'], { encoding: 'utf8' });
      if (status === 0) return new RegExp(library).test(stdout);
    }
    return false;
  }
  return spawnSync(probe[0], probe.slice(1), { stdio: 'ignore' }).status === 0;
}

/** The release's own name of a package whose name has a version in it: the newest. */
function packageOf({ apt, aptPattern }) {
  if (apt !== undefined) return apt;
  const { stdout } = spawnSync('apt-cache', ['pkgnames'], { encoding: 'utf8', maxBuffer: 2 ** 26 });
  const names = (stdout ?? '').split('\n').filter((name) => new RegExp(aptPattern).test(name));
  return names.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1);
}

function run(program, args) {
  // Runlevel 1: a package with a service (nginx, say) does not start it.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  const { status } = spawnSync(program, args, { stdio: ['ignore', 'ignore', 'inherit'], env });
  if (status !== 0) console.error(`${program} ${args.join(' ')} ended with ${status}`);
}
