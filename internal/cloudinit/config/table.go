package config

import (
	"slices"
	"strings"
)

// schema is the one table that reading, validation, suggestions and the
// documentation are made of.
var schema = slices.Concat(
	[]Entry{
		{Name: "coreos", Type: Mapping, About: "the daemons, units and updates"},
		{Name: "hostname", Type: Text, About: "name of the machine", check: checkHostname},
		{Name: "manage_etc_hosts", Type: Text, About: "`localhost`: the host name resolves to the machine itself", values: []string{"localhost"}},
		{Name: "ssh_authorized_keys", Type: Texts, About: "public keys that may log in as core", check: checkKey},
		{Name: "users", Type: Mappings, About: "users that are to exist"},
		{Name: "write_files", Type: Mappings, About: "files that are to be written"},

		{Section: "coreos", Name: "etcd", Type: Mapping, About: "options of etcd.service"},
		{Section: "coreos", Name: "etcd2", Type: Mapping, Since: "1.4", About: "options of etcd2.service"},
		{Section: "coreos", Name: "flannel", Type: Mapping, Since: "1.0", About: "options of flanneld.service"},
		{Section: "coreos", Name: "fleet", Type: Mapping, About: "options of fleet.service"},
		{Section: "coreos", Name: "locksmith", Type: Mapping, Since: "1.1", About: "options of locksmithd.service"},
		{Section: "coreos", Name: "oem", Type: Mapping, About: "whose image the machine was made from: /etc/oem-release"},
		{Section: "coreos", Name: "units", Type: Mappings, About: "units of systemd"},
		{Section: "coreos", Name: "update", Type: Mapping, About: "where updates come from and how the machine reboots: /etc/coreos/update.conf"},
	},
	etcdTable, etcd2Table, fleetTable, flannelTable, locksmithTable,
	[]Entry{
		{Section: "coreos.oem", Name: "id", Type: Text, About: "ID; without it nothing is written"},
		{Section: "coreos.oem", Name: "name", Type: Text, About: "NAME"},
		{Section: "coreos.oem", Name: "version_id", Type: Text, About: "VERSION_ID"},
		{Section: "coreos.oem", Name: "home_url", Type: Text, About: "HOME_URL"},
		{Section: "coreos.oem", Name: "bug_report_url", Type: Text, About: "BUG_REPORT_URL"},

		{Section: "coreos.update", Name: "reboot_strategy", Type: Text, About: "how the machine reboots for an update", values: []string{"best-effort", "etcd-lock", "off", "reboot"}},
		{Section: "coreos.update", Name: "group", Type: Text, About: "channel of the updates"},
		{Section: "coreos.update", Name: "server", Type: Text, About: "URL of the update server"},

		{Section: "coreos.units", Name: "name", Type: Text, About: "file name with suffix", check: checkUnitName},
		{Section: "coreos.units", Name: "content", Type: Text, About: "the whole unit file; none if the unit exists already"},
		{Section: "coreos.units", Name: "runtime", Type: Boolean, About: "below /run: gone after a reboot"},
		{Section: "coreos.units", Name: "enable", Type: Boolean, About: "like `systemctl enable`"},
		{Section: "coreos.units", Name: "mask", Type: Boolean, About: "link to /dev/null in place of what is there"},
		{Section: "coreos.units", Name: "command", Type: Text, About: "what systemd is told in the end", values: []string{"start", "stop", "restart", "reload", "try-restart", "reload-or-restart", "reload-or-try-restart"}},
		{Section: "coreos.units", Name: "drop_ins", Type: Mappings, Since: "1.0", About: "files in UNIT.d"},
		{Section: "coreos.units.drop_ins", Name: "name", Type: Text, About: "file name, ending in .conf", check: checkDropInName},
		{Section: "coreos.units.drop_ins", Name: "content", Type: Text, About: "the whole file"},

		{Section: "users", Name: "name", Type: Text, About: "login name", check: checkUserName},
		{Section: "users", Name: "passwd", Type: Text, About: "hash of crypt(3), never a password", check: checkHash},
		{Section: "users", Name: "ssh_authorized_keys", Type: Texts, About: "public keys that may log in", check: checkKey},
		{Section: "users", Name: "gecos", Type: Text, About: "full name", check: checkGecos},
		{Section: "users", Name: "homedir", Type: Text, About: "home directory", check: checkAbsolute},
		{Section: "users", Name: "no_create_home", Type: Boolean, About: "make no home directory"},
		{Section: "users", Name: "primary_group", Type: Text, About: "group, by name or number", check: checkGroup},
		{Section: "users", Name: "groups", Type: Texts, About: "further groups", check: checkGroup},
		{Section: "users", Name: "no_user_group", Type: Boolean, About: "make no group of the user's name"},
		{Section: "users", Name: "system", Type: Boolean, About: "a system user, without a home directory"},
		{Section: "users", Name: "no_log_init", Type: Boolean, About: "stay out of lastlog and faillog"},
		{Section: "users", Name: "shell", Type: Text, Since: "1.4", About: "login shell", check: checkAbsolute},
		{Section: "users", Name: "coreos_ssh_import_github", Type: Text, Deprecated: "keys are fetched from github.com at boot; list them in ssh_authorized_keys", About: "user of GitHub whose keys are fetched"},
		{Section: "users", Name: "coreos_ssh_import_github_users", Type: Texts, Since: "1.2", Deprecated: "keys are fetched from github.com at boot; list them in ssh_authorized_keys", About: "users of GitHub whose keys are fetched"},
		{Section: "users", Name: "coreos_ssh_import_url", Type: Text, Deprecated: "keys are fetched at boot; list them in ssh_authorized_keys", About: "URL that keys are fetched from", check: checkURL},

		{Section: "write_files", Name: "path", Type: Text, About: "absolute path", check: checkPath},
		{Section: "write_files", Name: "content", Type: Text, About: "what is written"},
		{Section: "write_files", Name: "owner", Type: Text, About: "`user` or `user:group`", check: checkOwner},
		{Section: "write_files", Name: "permissions", Type: Text, About: "octal, as written: `0644` (which is the default), `'0644'` and `644` are equal", check: checkPermissions},
		{Section: "write_files", Name: "encoding", Type: Text, Since: "1.1", About: "what is undone before the content is written", values: encodings},
	},
)

// encodings are the names that write_files knows, in all their forms.
var encodings = []string{"b64", "base64", "gz", "gzip", "gz+b64", "gz+base64", "gzip+b64", "gzip+base64"}

var proxyModes = []string{"on", "off", "readonly"}

const belongsToEtcd2 = "it belongs to etcd2"

// ours is in the place of a release for options that coreos-cloudinit never had.
const ours = "Flotilla"

// exposing are the options without which the store does not serve others.
const exposing = `allow_plain_http allow_anonymous_https`

var etcdTable = slices.Concat(
	daemon("coreos.etcd", "ETCD_", Text, `addr bind_addr ca_file cert_file cors data_dir discovery graphite_host key_file name
		peer_addr peer_bind_addr peer_ca_file peer_cert_file peer_key_file peers peers_file trace`),
	daemon("coreos.etcd", "ETCD_", Integer, `cluster_active_size max_result_buffer max_retry_attempts peer_election_timeout
		peer_heartbeat_interval snapshot_count`),
	daemon("coreos.etcd", "ETCD_", Number, `cluster_remove_delay cluster_sync_interval http_read_timeout http_write_timeout retry_interval`),
	daemon("coreos.etcd", "ETCD_", Boolean, `snapshot verbose very_verbose very_very_verbose`),
	deprecated("it was known to 0.11 alone", daemon("coreos.etcd", "ETCD_", Text, `cpu_profile_file`)),
	deprecated("it was known to 0.11 alone", daemon("coreos.etcd", "ETCD_", Integer, `max_cluster_size`)),
	since("1.3", deprecated(belongsToEtcd2, daemon("coreos.etcd", "ETCD_", Text, `advertise_client_urls discovery_fallback
		discovery_srv discovery_proxy initial_advertise_peer_urls initial_cluster initial_cluster_state initial_cluster_token
		listen_client_urls listen_peer_urls proxy`))),
	since("1.3", deprecated(belongsToEtcd2, daemon("coreos.etcd", "ETCD_", Integer, `election_timeout heartbeat_interval max_snapshots max_wals`))),
	since("1.3", deprecated(belongsToEtcd2, daemon("coreos.etcd", "ETCD_", Boolean, `force_new_cluster`))),
	since(ours, daemon("coreos.etcd", "ETCD_", Boolean, exposing)),
)

var etcd2Table = slices.Concat(
	since("1.4", daemon("coreos.etcd2", "ETCD_", Text, `advertise_client_urls cert_file cors data_dir discovery discovery_fallback
		discovery_proxy discovery_srv initial_advertise_peer_urls initial_cluster initial_cluster_state initial_cluster_token
		key_file listen_client_urls listen_peer_urls name peer_cert_file peer_key_file proxy`)),
	since("1.4", deprecated("use trusted_ca_file", daemon("coreos.etcd2", "ETCD_", Text, `ca_file`))),
	since("1.4", deprecated("use peer_trusted_ca_file", daemon("coreos.etcd2", "ETCD_", Text, `peer_ca_file`))),
	since("1.4", daemon("coreos.etcd2", "ETCD_", Integer, `election_timeout heartbeat_interval max_snapshots max_wals snapshot_count`)),
	since("1.4", daemon("coreos.etcd2", "ETCD_", Boolean, `client_cert_auth debug force_new_cluster`)),
	since("1.6", daemon("coreos.etcd2", "ETCD_", Text, `log_package_levels peer_trusted_ca_file trusted_ca_file`)),
	since("1.6", daemon("coreos.etcd2", "ETCD_", Integer, `proxy_dial_timeout proxy_failure_wait proxy_read_timeout
		proxy_refresh_interval proxy_write_timeout`)),
	since("1.6", daemon("coreos.etcd2", "ETCD_", Boolean, `peer_client_cert_auth`)),
	since("1.7", daemon("coreos.etcd2", "ETCD_", Text, `wal_dir`)),
	since("1.10", daemon("coreos.etcd2", "ETCD_", Boolean, `enable_pprof strict_reconfig_check`)),
	since(ours, daemon("coreos.etcd2", "ETCD_", Boolean, exposing)),
)

var fleetTable = slices.Concat(
	daemon("coreos.fleet", "FLEET_", Text, `agent_ttl etcd_cafile etcd_certfile etcd_keyfile etcd_servers metadata public_ip`),
	daemon("coreos.fleet", "FLEET_", Number, `engine_reconcile_interval etcd_request_timeout`),
	daemon("coreos.fleet", "FLEET_", Integer, `verbosity`),
	since("1.0", daemon("coreos.fleet", "FLEET_", Text, `etcd_key_prefix`)),
	since("1.7", daemon("coreos.fleet", "FLEET_", Text, `authorized_keys_file`)),
	since("1.7", daemon("coreos.fleet", "FLEET_", Integer, `token_limit`)),
	since("1.7", daemon("coreos.fleet", "FLEET_", Boolean, `disable_engine verify_units`)),
	since("1.13", daemon("coreos.fleet", "FLEET_", Text, `etcd_username etcd_password`)),
)

var flannelTable = slices.Concat(
	since("1.0", daemon("coreos.flannel", "FLANNELD_", Text, `etcd_endpoints etcd_prefix ip_masq subnet_file interface`)),
	since("1.0", deprecated("use etcd_endpoints", daemon("coreos.flannel", "FLANNELD_", Text, `etcd_endpoint`))),
	since("1.2", daemon("coreos.flannel", "FLANNELD_", Text, `etcd_cafile etcd_certfile etcd_keyfile`)),
	since("1.6", daemon("coreos.flannel", "FLANNELD_", Text, `public_ip`)),
	since("1.13", daemon("coreos.flannel", "FLANNELD_", Text, `etcd_username etcd_password`)),
)

var locksmithTable = slices.Concat(
	since("1.1", daemon("coreos.locksmith", "LOCKSMITHD_", Text, `endpoint etcd_cafile etcd_certfile etcd_keyfile`)),
	since("1.7", daemon("coreos.locksmith", "LOCKSMITHD_", Text, `group window_start window_length`)),
	since("1.13", daemon("coreos.locksmith", "LOCKSMITHD_", Text, `etcd_username etcd_password`)),
)

// oddVariables are those whose names do not follow from the option's.
var oddVariables = map[string]string{
	"coreos.etcd.snapshot_count":     "ETCD_SNAPSHOTCOUNT", // as etcd 0.4 read it
	"coreos.flannel.etcd_endpoint":   "FLANNELD_ETCD_ENDPOINTS",
	"coreos.flannel.interface":       "FLANNELD_IFACE",
	"coreos.locksmith.window_start":  "REBOOT_WINDOW_START",
	"coreos.locksmith.window_length": "REBOOT_WINDOW_LENGTH",
}

// daemonValues are the words that a daemon's option takes, where it takes but few.
var daemonValues = map[string][]string{
	"proxy":                 proxyModes,
	"discovery_fallback":    {"exit", "proxy"},
	"initial_cluster_state": {"existing", "new"},
}

// daemonChecks are what else can be told of a daemon's option without the daemon.
var daemonChecks = map[string]func(string) string{
	"coreos.locksmith.window_start":  checkWindowStart,
	"coreos.locksmith.window_length": checkWindowLength,
	"coreos.fleet.metadata":          checkMetadata,
}

// daemon makes the entries of options that are handed to a daemon in its
// environment.
func daemon(section, prefix string, t Type, names string) []Entry {
	var entries []Entry
	for _, name := range strings.Fields(names) {
		path := section + "." + name
		e := Entry{Section: section, Name: name, Type: t, Variable: oddVariables[path], check: daemonChecks[path]}
		if e.Variable == "" {
			e.Variable = prefix + strings.ToUpper(name)
		}
		if t == Text {
			e.values = daemonValues[name]
		}
		entries = append(entries, e)
	}
	return entries
}

func since(release string, entries []Entry) []Entry {
	for i := range entries {
		entries[i].Since = release
	}
	return entries
}

func deprecated(why string, entries []Entry) []Entry {
	for i := range entries {
		entries[i].Deprecated = why
	}
	return entries
}
