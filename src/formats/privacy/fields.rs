//! Which fields are known to identify people, places or devices, and which values look as if they did.

use super::dates;

/// Fields that identify a patient, a person of the staff, a hospital or a machine, or hold free text in which anybody may
/// be named. Written as DICOM keywords, as BIDS sidecars have them, and as tables commonly call them; compared without
/// regard to case, `_`, `-`, dots and spaces.
///
/// Source: DICOM PS3.15 Annex E (Basic Application Level Confidentiality Profile) as far as converters write the field
/// into sidecars; 45 CFR 164.514(b)(2) for the fields of tables.
#[rustfmt::skip]
pub const KNOWN: &[&str] = &[
    // Patients
    "PatientName", "PatientID", "PatientBirthDate", "PatientBirthTime", "PatientBirthName", "PatientMotherBirthName",
    "PatientAddress", "PatientTelephoneNumbers", "PatientComments", "PatientInsurancePlanCodeSequence",
    "OtherPatientIDs", "OtherPatientNames", "IssuerOfPatientID", "MedicalRecordLocator", "AdditionalPatientHistory",
    "MilitaryRank", "Occupation", "CountryOfResidence", "RegionOfResidence", "PatientReligiousPreference",
    "ResponsiblePerson", "ResponsibleOrganization", "ClinicalTrialSubjectID",
    // Visits and studies
    "AccessionNumber", "AdmissionID", "StudyID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
    "FrameOfReferenceUID", "MediaStorageSOPInstanceUID", "RequestAttributesSequence", "ServiceEpisodeID",
    // Places, people of the staff, devices
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "InstitutionCodeSequence",
    "ReferringPhysicianName", "ReferringPhysicianAddress", "ReferringPhysicianTelephoneNumbers",
    "PerformingPhysicianName", "RequestingPhysician", "PhysiciansOfRecord", "ConsultingPhysicianName",
    "NameOfPhysiciansReadingStudy", "OperatorsName", "ScheduledPerformingPhysicianName", "StationName",
    "PerformedStationName", "DeviceSerialNumber", "DeviceUID", "GantryID", "DetectorID",
    // Free text
    "ProtocolName", "SeriesDescription", "StudyDescription", "ProcedureStepDescription", "ImageComments",
    "PerformedProcedureStepDescription", "RequestedProcedureDescription", "ReasonForStudy", "StudyComments",
    "AdmittingDiagnosesDescription",
    // Tables
    "name", "patient", "full_name", "first_name", "last_name", "family_name", "given_name", "surname", "forename",
    "maiden_name", "initials", "mrn", "patient_no", "patient_number", "hospital_no", "hospital_number", "case_no",
    "dob", "birth_date", "birthdate", "date_of_birth", "birthday", "birth_year", "year_of_birth", "email", "e-mail",
    "phone", "telephone", "mobile", "fax", "address", "street", "city", "town", "postcode", "postal_code", "zip",
    "zip_code", "ssn", "social_security_number", "nhs_number", "insurance_no", "insurance_number", "national_id",
    "passport", "physician", "doctor", "referrer", "referring_physician", "operator", "technician", "comment",
    "comments", "note", "notes", "remark", "remarks", "history", "diagnosis", "free_text", "report", "url", "ip",
];

/// A field's name without what writers vary: case and separators.
pub fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Whether a field is in a list.
pub fn is_in(list: &[String], name: &str) -> bool {
    let name = plain(name);
    list.iter().any(|known| plain(known) == name)
}

/// Whether a field is known to identify.
pub fn is_known(name: &str) -> bool {
    let name = plain(name);
    KNOWN.iter().any(|known| plain(known) == name)
}

/// Whether a field is a date of birth, which is not shifted but dropped.
pub fn is_birth(name: &str) -> bool {
    let name = plain(name);
    name.contains("birth") || name == "dob"
}

/// Digits in a row from which a number is taken for somebody's: a record, an account, a telephone.
const LONG_NUMBER: usize = 6;

/// Whether a value says no more than a quantity or an answer: a short number, yes or no.
pub fn is_quantity(text: &str) -> bool {
    let answer = ["true", "false", "yes", "no", "y", "n", "f", "m"];
    let whole =
        text.trim_start_matches(['-', '+']).split(['.', 'e', 'E']).next().unwrap_or_default();
    answer.iter().any(|a| text.eq_ignore_ascii_case(a))
        || (text.parse::<f64>().is_ok() && whole.len() < LONG_NUMBER)
}

/// Whether a text reads like a category (`Siemens`, `left MCA`, `LAA`) and not like a sentence, an address or a number of
/// somebody's.
pub fn is_category(text: &str) -> bool {
    let run = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    text.len() <= 40
        && text.split_whitespace().count() <= 4
        && run < LONG_NUMBER
        && !text.contains(['@', '\\', ';', '^', '='])
        && !dates::is_date(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_are_compared_loosely() {
        for name in [
            "PatientName",
            "patient_name",
            "PATIENT NAME",
            "patient-name",
            "e mail",
            "Date of birth",
        ] {
            assert!(is_known(name), "{name}");
        }
        for name in ["age", "nihss", "site", "EchoTime", "onset_h", "vendor", "ward"] {
            assert!(!is_known(name), "{name}");
        }
    }

    #[test]
    fn quantities_and_categories_are_told_from_text() {
        assert!(
            ["7", "-3.25", "1e5", "12345", "yes", "F", "123456.5"]
                .iter()
                .filter(|t| is_quantity(t))
                .count()
                == 6
        );
        assert!(!is_quantity("4711081") && !is_quantity("Anna") && !is_quantity("2019-03-04"));
        assert!(is_category("Magnetom Prisma fit") && is_category("left MCA"));
        for text in
            ["seen by Dr A. Muster on ward", "Muster^Anna", "a@b.org", "20190304", "MR 4711081"]
        {
            assert!(!is_category(text), "{text}");
        }
    }
}
