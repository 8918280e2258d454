// npm leaves out of package-lock.json those optional packages of other platforms that the registry in use does not
// offer, and `npm ci` then refuses the lock file as incomplete, everywhere. This adds an entry for each (without
// integrity, which nobody here can know; the version is exact). Run it after every `npm install` that changes the file.
import { readFileSync, writeFileSync } from 'node:fs';

const systems = [
  'aix',
  'android',
  'darwin',
  'freebsd',
  'linux',
  'netbsd',
  'openbsd',
  'openharmony',
  'win32',
];
const processors = ['arm', 'arm64', 'ia32', 'loong64', 'ppc64', 'riscv64', 's390x', 'x64'];

const file = new URL('../package-lock.json', import.meta.url);
const lock = JSON.parse(readFileSync(file, 'utf8'));
for (const entry of Object.values({ ...lock.packages })) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    lock.packages[`node_modules/${name}`] ??= platformEntry(name, version, entry.dev === true);
  }
}
lock.packages = Object.fromEntries(
  Object.entries(lock.packages).sort(([a], [b]) => a.localeCompare(b, 'en')),
);
writeFileSync(file, `${JSON.stringify(lock, undefined, 2)}\n`);

/** Such packages say in their name what they are for: `@oxfmt/binding-linux-x64-musl`. */
function platformEntry(name, version, dev) {
  const words = name.split('/').at(-1).split('-');
  const os = systems.filter((word) => words.includes(word));
  const cpu = processors.filter((word) => words.includes(word));
  if (os.length === 0 || cpu.length === 0) throw new Error(`for which platform is ${name}?`);
  const abi = words.at(-1);
  const libc = abi.startsWith('musl') ? ['musl'] : abi.startsWith('gnu') ? ['glibc'] : undefined;
  return {
    version,
    cpu,
    ...(dev ? { dev } : {}),
    ...(os[0] === 'linux' && libc !== undefined ? { libc } : {}),
    optional: true,
    os,
  };
}
