/** The cluster's folder: made once, recognised later, refused to others. */
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import { ClusterConfig } from "../../proto/cluster_config.ts";
import {
  ClusterFolderError,
  markAdminMade,
  openClusterFolder,
  readUpLock,
  UpLockFile,
} from "../../roles/cluster_folder.ts";
import { makeSelfSignedCertificate } from "../../roles/supervisor_certificate.ts";

const configOf = (name: string) =>
  ClusterConfig.parse({
    cluster: { name, mail_domain: "mail.example" },
    store: { replicas: 1, min_in_sync: 1 },
    node: [
      { role: "coordinator", id: 0, host: "10.1.2.3", port: 9999 },
      { role: "backend", id: 0, host: "10.1.2.3", port: 10_000 },
    ],
  });
const config = configOf("home");

async function withDir(body: (dir: string) => Promise<void>): Promise<void> {
  const parent = await Deno.makeTempDir();
  try {
    await body(join(parent, "data"));
  } finally {
    await Deno.remove(parent, { recursive: true });
  }
}

Deno.test("the first start makes id, secret and certificate, and the next one finds them", () =>
  withDir(async (dir) => {
    const first = await openClusterFolder(dir, { config, create: true });
    const second = await openClusterFolder(dir, { config, create: true });
    assert.equal(first.created, true);
    assert.equal(second.created, false);
    assert.equal(second.clusterId, first.clusterId);
    assert.deepEqual(second.secret, first.secret);
    assert.equal(first.secret.length, 32);
  }));

Deno.test("several first starts at once agree on one secret", () =>
  withDir(async (dir) => {
    const folders = await Promise.all(
      Array.from({ length: 5 }, () => openClusterFolder(dir, { config, create: true })),
    );
    assert.equal(new Set(folders.map((folder) => folder.secret.toHex())).size, 1);
    assert.equal(folders.filter((folder) => folder.created).length, 1);
  }));

Deno.test("files with secrets are for their owner only", () =>
  withDir(async (dir) => {
    await openClusterFolder(dir, { config, create: true });
    for (const name of ["secret", "tls_key.pem", "cluster.json"]) {
      assert.equal((await Deno.stat(join(dir, name))).mode! & 0o777, 0o600, name);
    }
  }));

Deno.test("the certificate is for the mail domain, this machine and the nodes' hosts, and no authority", () =>
  withDir(async (dir) => {
    await openClusterFolder(dir, { config, create: true });
    const certificate = new X509Certificate(await Deno.readTextFile(join(dir, "tls_cert.pem")));
    assert.equal(
      certificate.subjectAltName,
      "DNS:mail.example, DNS:localhost, IP Address:127.0.0.1, IP Address:10.1.2.3",
    );
    assert.equal(certificate.ca, false);
  }));

Deno.test("a certificate about to expire is made again, and the secret is not", () =>
  withDir(async (dir) => {
    const { secret } = await openClusterFolder(dir, { config, create: true });
    const old = await makeSelfSignedCertificate({
      names: ["mail.example"],
      notBefore: new Date(),
      days: 30,
    });
    await Deno.writeTextFile(join(dir, "tls_cert.pem"), old.certificate);
    const again = await openClusterFolder(dir, { config, create: true });
    assert.notEqual(await Deno.readTextFile(join(dir, "tls_cert.pem")), old.certificate);
    assert.deepEqual(again.secret, secret);
  }));

Deno.test("the folder of another cluster is refused, with both names", () =>
  withDir(async (dir) => {
    await openClusterFolder(dir, { config, create: true });
    await assert.rejects(
      openClusterFolder(dir, { config: configOf("office"), create: true }),
      (error: Error) =>
        error instanceof ClusterFolderError &&
        /belongs to the cluster "home"/.test(error.message) &&
        /"office"/.test(error.message),
    );
  }));

Deno.test("a folder that holds something else is refused and left alone", () =>
  withDir(async (dir) => {
    await Deno.mkdir(dir);
    await Deno.writeTextFile(join(dir, "thesis.txt"), "years of work");
    await assert.rejects(
      openClusterFolder(dir, { config, create: true }),
      /holds "thesis.txt" and no cluster: use an empty folder/,
    );
    const names = [...Deno.readDirSync(dir)].map((entry) => entry.name).sort();
    assert.deepEqual(names, ["thesis.txt"]);
  }));

Deno.test("without `create`, a missing folder is an error that says how to start a cluster", () =>
  withDir(async (dir) => {
    await assert.rejects(
      openClusterFolder(dir, { config, create: false }),
      /No cluster in .*: start one with `penncloud up`/,
    );
  }));

Deno.test("a damaged cluster.json or secret is named", () =>
  withDir(async (dir) => {
    await openClusterFolder(dir, { config, create: true });
    await Deno.writeTextFile(join(dir, "secret"), "abc");
    await assert.rejects(openClusterFolder(dir, { config, create: true }), /secret.*copy it from/);
    await Deno.writeTextFile(join(dir, "cluster.json"), "{}");
    await assert.rejects(openClusterFolder(dir, { config, create: true }), /is not what/);
  }));

Deno.test("the admin account is remembered as made", () =>
  withDir(async (dir) => {
    assert.equal((await openClusterFolder(dir, { config, create: true })).adminMade, false);
    await markAdminMade(dir);
    assert.equal((await openClusterFolder(dir, { config, create: true })).adminMade, true);
  }));

Deno.test("a second `up` on a folder is refused with the first one's process id", () =>
  withDir(async (dir) => {
    await openClusterFolder(dir, { config, create: true });
    const lock = await UpLockFile.take(dir, 500);
    assert.equal((await readUpLock(dir))?.portOffset, 500);
    await assert.rejects(
      UpLockFile.take(dir, 0),
      new RegExp(`in use by a running .penncloud up. \\(process ${Deno.pid}\\)`),
    );
    await lock.release();
    assert.equal(await readUpLock(dir), null);
    const next = await UpLockFile.take(dir, 0);
    assert.equal(next.formerWasCutShort, false);
    await next.release();
  }));
